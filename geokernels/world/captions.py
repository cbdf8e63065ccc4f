"""What can be said of a scene: one grammar, from a single word's worth to every attribute."""

import re
from collections.abc import Sequence

import torch

from .scenes import ATTRIBUTES, Scenes

TEMPLATES = (
    "{}",
    "a picture of {}",
    "a photo of {}",
    "an image of {}",
    "a drawing of {}",
    "a rendering of {}",
    "there is {}",
    "this is {}",
)
"""Sentences around a description. The first leaves it bare; all were used to train the world's CLIP."""

WORDS = frozenset(
    word
    for sentence in (*TEMPLATES, "a an object on background", *(" ".join(v) for v in ATTRIBUTES.values()))
    for word in sentence.replace("{}", "").split()
)
"""Every word of the grammar, for those who must know whether a prompt can be understood."""

Seen = dict[str, str | None]
"""What the judge reads in a picture: a value for every attribute, None where it cannot name one."""


def describe(attributes: dict[str, str]) -> str:
    """Describe an object by the attributes given, in the order size, texture, colour, shape, background.

    Args:
        attributes: Any subset of ``{attribute: value}``; what is missing is left unsaid.

    Returns:
        A noun phrase.

    Raises:
        ValueError: For an attribute or a value that the world does not have.

    Example:
        >>> describe({"shape": "star", "colour": "orange", "background": "blue"})
        'an orange star on a blue background'
        >>> describe({"size": "large"})
        'a large object'
    """
    for attribute, value in attributes.items():
        if value not in ATTRIBUTES.get(attribute, ()):
            raise ValueError(f"the world has no {attribute} {value!r}; see geokernels.world.ATTRIBUTES")
    adjectives = [attributes[a] for a in ("size", "texture", "colour") if a in attributes]
    words = [*adjectives, attributes.get("shape", "object")]
    ground = f" on {_article(attributes['background'])} background" if "background" in attributes else ""
    return _article(words[0]) + " ".join(["", *words[1:]]) + ground


def reading(seen: Seen) -> str:
    """What the judge reads in a picture, in words; what it cannot name is left unsaid."""
    return describe({attribute: value for attribute, value in seen.items() if value is not None})


def understand(prompt: str) -> dict[str, str] | None:
    """The attributes that a prompt of the grammar names, in any template: what :func:`describe` was given.

    Args:
        prompt: Any text.

    Returns:
        ``{attribute: value}``, or None for a prompt that the grammar does not make.

    Example:
        >>> understand("a photo of a large star on a blue background")
        {'size': 'large', 'shape': 'star', 'background': 'blue'}
        >>> understand("a zebra")
    """
    for template in TEMPLATES:
        before, after = template.split("{}")
        match = _DESCRIPTION.fullmatch(prompt.strip().removeprefix(before).removesuffix(after))
        if match:
            return {attribute: value for attribute, value in match.groupdict().items() if value}
    return None


def caption(
    scenes: Scenes, template: str = TEMPLATES[0], *, attributes: Sequence[str] = tuple(ATTRIBUTES)
) -> list[str]:
    """Caption each scene, for instance "a large striped red circle on a blue background".

    Args:
        scenes: What is shown.
        template: A sentence with one ``{}`` for the description; ``TEMPLATES`` has those the CLIP has read.
        attributes: Which attributes to name; all by default.

    Returns:
        One caption a scene.

    Raises:
        ValueError: If ``template`` has no ``{}``, or an attribute is unknown.
    """
    if template.count("{}") != 1:
        raise ValueError(f"template must contain {{}} once, got {template!r}")
    unknown = [a for a in attributes if a not in ATTRIBUTES]
    if unknown:
        raise ValueError(f"attributes must be among {', '.join(ATTRIBUTES)}, got {unknown[0]!r}")
    return [template.format(describe({a: names[a] for a in attributes})) for names in scenes.names()]


def random_attributes(n: int, *, generator: torch.Generator) -> list[tuple[str, ...]]:
    """Choose what each of ``n`` captions names: everything (40%), one attribute (30%), or a random subset."""
    every = tuple(ATTRIBUTES)
    kind = torch.rand(n, generator=generator, dtype=torch.float32).tolist()
    one = torch.randint(len(every), (n,), generator=generator).tolist()
    keep = (torch.rand(n, len(every), generator=generator, dtype=torch.float32) < 0.5).tolist()
    subsets = (tuple(a for a, kept in zip(every, row) if kept) for row in keep)
    return [
        every if k < 0.4 else (every[i],) if k < 0.7 else (subset or (every[i],))
        for k, i, subset in zip(kind, one, subsets)
    ]


def _any(attribute: str) -> str:
    return f"(?P<{attribute}>{'|'.join(ATTRIBUTES[attribute])})"


_DESCRIPTION = re.compile(
    "an? "
    + "".join(f"(?:{_any(attribute)} )?" for attribute in ("size", "texture", "colour"))
    + f"(?:{_any('shape')}|object)(?: on an? {_any('background')} background)?"
)


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
