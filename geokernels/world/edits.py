"""Folders of edits in the layout of PIE-Bench: written from the rendered world, and read, theirs as ours.

    mapping_file.json                  per edit: picture, prompts, instruction, kind, mask
    annotation_images/<kind>/<key>.png the pictures to edit
    edited_images/<kind>/<key>.png     the same, truly edited: in our folders alone

PIE-Bench is the benchmark of "PnP Inversion" (Ju et al., ICLR 2024): 700 pictures of 512 x 512.
"""

import json
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .._files import read_json_entries, remove_left_over, replacing, write_json
from .._modes import own_modes
from .captions import caption
from .edit_folder import (
    EDITED,
    MAPPING,
    RECIPE,
    SIDE,
    SOURCES,
    STRIDE,
    places_of,
    require_edit_folder,
    require_size,
)
from .renderer import object_mask, render
from .scenes import Scenes, edit, sample_scenes

KINDS = (
    "random",
    "change_object",
    "add_object",
    "delete_object",
    "change_attribute_content",
    "change_attribute_pose",
    "change_attribute_color",
    "change_attribute_material",
    "change_background",
    "change_style",
)
"""The ten kinds of edits of PIE-Bench, by the number that its mapping file gives them."""
# What an edit of each attribute is to PIE-Bench; size, which it does not know, is content.
KIND_OF = {"shape": 1, "colour": 6, "background": 8, "size": 4, "texture": 7}


@dataclass(frozen=True)
class EditCase:
    """One edit that is asked for.

    Attributes:
        key: Its name in the mapping file.
        picture: File of the picture to edit.
        edited: File of the true result, or None, as in PIE-Bench itself.
        source: What the picture shows; without the brackets that mark the difference, unless asked for.
        target: What it shall show.
        instruction: The same as a command.
        kind: Index into ``KINDS``.
        blended: The words of source and target that the edit is about; either may be empty.
        runs: The mask as start and length of each run of ones in the rows of 512 x 512 pixels; an array where
            it was read, since thousands of masks are held.
        attribute: What of the scene changes; None in PIE-Bench.
    """

    key: str
    picture: Path
    edited: Path | None
    source: str
    target: str
    instruction: str
    kind: int
    blended: tuple[str, ...]
    runs: Sequence[int]
    attribute: str | None = None

    def mask(self, size: int = SIDE, *, border: bool = False) -> Tensor:
        """Where the edit may change the picture, ``(1, size, size)`` bool.

        Args:
            size: A divisor of 512; a pixel may change if any part of it may.
            border: Let the outermost pixels change too, as the published evaluation does.

        Raises:
            ValueError: If ``size`` does not divide 512.
        """
        require_size(size)
        mask = decode_runs(self.runs)
        if border:
            mask[:, [0, -1]] = mask[:, :, [0, -1]] = True
        return F.max_pool2d(mask.float(), SIDE // size) > 0


@own_modes
def write_edit_folder(
    folder: str | Path, n: int, *, seed: int = 0, size: int = 64, advance: Callable[[], None] | None = None
) -> Path:
    """Write ``n`` edits of one attribute each, every attribute in turn, with the truly edited pictures.

    The edits depend on the seed alone: a larger ``n`` adds to those of a smaller one, and a smaller one takes
    none away. What an interrupted call left is kept; the mapping file is written last.

    Args:
        folder: Where; made if it is not there.
        n: How many.
        seed: Of the scenes and of the edits.
        size: Width and height of the pictures, a divisor of 512, at least 16.
        advance: Called after each edit.

    Returns:
        The mapping file.

    Raises:
        ValueError: If ``n`` or ``size`` is no such number, or the folder holds edits of another seed or size.
        ImportError: If Pillow is not installed.
    """
    if not 1 <= n < STRIDE:
        raise ValueError(f"n must lie between 1 and {STRIDE - 1}, got {n}")
    folder = Path(folder)
    for place in places_of(folder):
        remove_left_over(place, alone=False)
    require_edit_folder(folder, seed=seed, size=size)
    if not (folder / RECIPE).exists():
        write_json(folder / RECIPE, {"seed": seed, "size": size})
    earlier = _entries(folder / MAPPING) if (folder / MAPPING).exists() else {}
    entries = {}
    for i in range(n):
        attribute = tuple(KIND_OF)[i % len(KIND_OF)]
        chance = torch.Generator().manual_seed(seed * STRIDE + i)
        before = sample_scenes(1, generator=chance)
        after = edit(before, attribute, generator=chance)
        key = f"{KIND_OF[attribute]}{i:011d}"
        entries[key] = _entry(key, attribute, before, after, size)
        for part, scene in ((SOURCES, before), (EDITED, after)):
            path = folder / part / entries[key]["image_path"]
            if not _is_whole(path):
                _write_png(path, render(scene, size)[0])
        if advance:
            advance()
    if not entries.keys() < earlier.keys():
        _write_entries(folder / MAPPING, entries)
    return folder / MAPPING


def read_edit_folder(folder: str | Path, *, brackets: bool = False) -> list[EditCase]:
    """Read a folder of edits, one of :func:`write_edit_folder` or PIE-Bench itself.

    Args:
        folder: Holds ``mapping_file.json`` and ``annotation_images``.
        brackets: Keep the brackets that mark what differs between the texts.

    Returns:
        The edits, in the order of the mapping file. The picture of one may be missing: whoever reads it
        finds out, as of one that is damaged.

    Raises:
        FileNotFoundError: If there is no mapping file, or none of the pictures that it names.
        ValueError: If the mapping file is broken; the message says which entry, what was expected, and what
            was found.
    """
    path = Path(folder) / MAPPING
    if not path.is_file():
        raise FileNotFoundError(f"a folder of edits must hold {MAPPING}, found none in {folder}")
    cases = [_case(Path(folder), key, entry, brackets) for key, entry in _entries(path).items()]
    if cases and not any(case.picture.is_file() for case in cases):
        sources = Path(folder) / SOURCES
        raise FileNotFoundError(
            f"a folder of edits must hold the pictures that {MAPPING} names, found none in {sources}"
        )
    return cases


def encode_runs(mask: Tensor) -> list[int]:
    """Start and length of each run of ones in a mask (1, H, W), row by row; see :func:`decode_runs`."""
    edges = F.pad(mask.flatten().to(torch.int8), (1, 1)).diff()
    starts, stops = (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]
    return torch.stack([starts, stops - starts], 1).flatten().tolist()


def decode_runs(runs: Sequence[int]) -> Tensor:
    """A mask ``(1, 512, 512)`` bool from the start and length of each of its runs; runs may overlap."""
    start, length = torch.tensor(runs, dtype=torch.int64).view(-1, 2).unbind(1)
    edges = torch.zeros(SIDE * SIDE + 1, dtype=torch.int64)
    edges.index_add_(0, start, torch.ones_like(start))
    # what would run over the last pixel ends there, as in the published reader
    edges.index_add_(0, (start + length).clamp(max=SIDE * SIDE), -torch.ones_like(start))
    return (edges.cumsum(0)[:-1] > 0).view(1, SIDE, SIDE)


def _entry(key: str, attribute: str, before: Scenes, after: Scenes, size: int) -> dict:
    """What the mapping file says of an edit."""
    old, new = before.names()[0], after.names()[0]
    thing = (old["shape"], new["shape"]) if attribute != "background" else ("background",) * 2
    made = f"a {new['shape']}" if attribute == "shape" else new[attribute]
    verb = "Turn the {} into {}." if attribute == "shape" else "Make the {} {}."
    kind = KIND_OF[attribute]
    mask = _may_change(before, after, attribute, size)
    whole = mask.repeat_interleave(SIDE // size, 1).repeat_interleave(SIDE // size, 2)
    return {
        "image_path": f"{kind}_{KINDS[kind]}/{key}.png",
        "original_prompt": _marked(caption(before)[0], old[attribute]),
        "editing_prompt": _marked(caption(after)[0], new[attribute]),
        "editing_instruction": verb.format(thing[0], made),
        "editing_type_id": str(kind),
        "blended_word": " ".join(thing),
        "mask": array("i", encode_runs(whole)),
        "attribute": attribute,
    }


def _may_change(before: Scenes, after: Scenes, attribute: str, size: int) -> Tensor:
    """Where the two pictures may differ, ``(1, size, size)`` bool."""
    first, second = object_mask(before, size)[0], object_mask(after, size)[0]
    return first < 1 if attribute == "background" else (first > 0) | (second > 0)


def _marked(sentence: str, value: str) -> str:
    """Put the word that an edit changes into brackets; no caption says a value twice."""
    return " ".join(f"[{word}]" if word == value else word for word in sentence.split())


def _case(folder: Path, key: str, entry: object, brackets: bool) -> EditCase:
    def refuse(expected: str, found: object) -> ValueError:
        return ValueError(f"{folder / MAPPING}: {expected} in entry {key!r}, got {found!r:.80}")

    if not isinstance(entry, dict):
        raise refuse("an edit must be an object", entry)
    texts = ("image_path", "original_prompt", "editing_prompt", "editing_instruction", "blended_word")
    for name in texts:
        if not isinstance(entry.get(name), str):
            raise refuse(f"{name} must be a text", entry.get(name))
    if entry.get("editing_type_id") not in map(str, range(len(KINDS))):
        raise refuse('editing_type_id must be one of "0" to "9"', entry.get("editing_type_id"))
    runs = entry.get("mask")
    if not isinstance(runs, array) or len(runs) % 2 or min(runs, default=0) < 0:
        runs = list(runs) if isinstance(runs, array) else runs
        raise refuse("mask must list start and length of every run", runs)
    if max(runs[::2], default=0) >= SIDE * SIDE:
        raise refuse(f"runs of the mask must start before {SIDE * SIDE}", max(runs[::2]))
    sources, relative = folder / SOURCES, entry["image_path"]
    picture = sources / relative
    if not picture.resolve().is_relative_to(sources.resolve()):
        raise refuse(f"image_path must lie in {SOURCES}", relative)
    edited = folder / EDITED / relative
    said = {name: entry[name] if brackets else unmarked(entry[name]) for name in texts}
    return EditCase(
        key=key,
        picture=picture,
        edited=edited if edited.is_file() else None,
        source=said["original_prompt"],
        target=said["editing_prompt"],
        instruction=entry["editing_instruction"],
        kind=int(entry["editing_type_id"]),
        blended=tuple(entry["blended_word"].split()),
        runs=runs,
        attribute=entry.get("attribute"),
    )


def unmarked(prompt: str) -> str:
    """A prompt of a mapping file without the brackets that mark what an edit changes."""
    return prompt.replace("[", "").replace("]", "")


def _write_entries(path: Path, entries: dict[str, dict]) -> None:
    """Write a mapping file entry by entry, as :func:`write_json` would write it whole."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for i, (key, entry) in enumerate(entries.items()):
            said = json.dumps({key: {**entry, "mask": list(entry["mask"])}}, indent=2)
            file.write(("," if i else "{") + said[1:-2])  # without its own braces
        file.write("\n}\n")


def _entries(path: Path) -> dict:
    entries = read_json_entries(path, object_of=_compact)
    if not isinstance(entries, dict):
        raise ValueError(f"{path} must map keys to edits, got a {type(entries).__name__}")
    return entries


def _compact(pairs: list[tuple[str, object]]) -> dict:
    """An object of a mapping file, its mask in the bytes that it needs, before the next one is read."""
    entry = dict(pairs)
    runs = entry.get("mask")
    if isinstance(runs, list) and all(type(run) is int for run in runs):
        with suppress(OverflowError):  # no run begins or is so far away: it is refused as it stands
            entry["mask"] = array("i", runs)
    return entry


def _is_whole(path: Path) -> bool:
    """Whether there is a picture, as its own checksums say; where Pillow is missing, any file is one."""
    if not path.is_file():
        return False
    try:
        from PIL import Image
    except ImportError:
        return True
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError):
        return False
    return True


def _write_png(path: Path, rgb: Tensor) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('writing pictures needs Pillow: pip install "geokernels[morph]"') from error
    pixels = (rgb * 255).round().to(torch.uint8).permute(1, 2, 0)
    with replacing(path) as partial:
        Image.fromarray(pixels.numpy()).save(partial, format="PNG")
