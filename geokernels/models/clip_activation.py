"""Whether CLIP weights were trained with the quick GELU, as far as anything says so.

OpenAI trained with ``x * sigmoid(1.702 x)`` where open_clip's ``ViT-B-32`` has the exact GELU: tensors and
shapes are the same, features are not. Nothing in a bare state dict tells the two apart. Its logit scale does
not: it ends at 100, where both clip it.
"""

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .._files import read_json
from .clip_sources import CONFIGURATION, Called, Source, import_open_clip

# what OpenAI keeps beside its weights; open_clip's, and nobody else's, have none of it
OPENAI = ("input_resolution", "context_length", "vocab_size")
QUICK = "-quickgelu"  # what open_clip appends to the names of architectures


class Said(NamedTuple):
    """What something says of an activation."""

    quick: bool
    by: str  # the words after "as", in a message


def activation_of(
    source: Source, state: Mapping[str, Tensor], content: Mapping, called: Called
) -> bool | None:
    """Whether weights were trained with the quick GELU; None where nobody says.

    What the weights or the files beside them say decides, and what a tag says where they do not.

    Args:
        source: Of the weights.
        state: Them, by their names in the file.
        content: The file they came in.
        called: What messages call the arguments.

    Raises:
        ValueError: If a tag, or an architecture with the quick GELU, is named for weights that say otherwise.
    """
    own, file = source.config.get("quick_gelu", False), source.weights.name
    said = _said(source, state, content, called)
    if said is not None and source.quick not in (None, said.quick):
        raise ValueError(
            f"{called.name} must name weights trained with{'' if said.quick else 'out'} the quick GELU for "
            f"{file}, as {said.by}, got {source.name!r}, whose tag says the other; {_instead(source, said)}"
        )
    if said is None:
        # of some tags open_clip says no more than their architecture does
        return None if source.quick is None else source.quick or own
    if own and not said.quick:
        raise ValueError(
            f"{called.name} must name an architecture without the quick GELU for {file}, as {said.by}, got "
            f"{source.name!r}; {_instead(source, said)}"
        )
    return said.quick


def warn_of_silence(source: Source, called: Called) -> None:
    """Say that weights are taken as their architecture is, where open_clip has it in both forms."""
    if not source.config.get("quick_gelu", False) and _twin(source):
        warnings.warn(
            f"{source.weights.name} does not say whether it was trained with the quick GELU, and is taken as "
            f"{source.name} is: without; for weights of OpenAI {called.name} must be {_twin(source)}, for "
            f"others it may name their tag, as {source.architecture}/TAG",
            stacklevel=4,
        )


def named(source: Source, quick: bool) -> str:
    """What to call a model: as it was asked for, or the architecture that its weights need."""
    if source.quick is None and quick and not source.config.get("quick_gelu", False):
        return _twin(source) or source.name
    return source.name


def _twin(source: Source) -> str | None:
    """The architecture with the quick GELU where open_clip has that of ``source`` in both forms."""
    twin = f"{source.architecture}{QUICK}"
    return twin if twin in import_open_clip().list_models() else None


def _instead(source: Source, said: Said) -> str:
    plain = (source.architecture or source.name).removesuffix(QUICK)
    return f"name {plain}{QUICK if said.quick else ''}"


def _said(source: Source, state: Mapping[str, Tensor], content: Mapping, called: Called) -> Said | None:
    """What the weights say, or the files beside them; None where they do not."""
    if any(key in state or key in content for key in OPENAI):
        return Said(True, "the sizes that OpenAI keeps beside its weights say")
    if is_transformers(state):
        return _of_transformers(source, called)
    if source.architecture is None:  # its configuration was read already
        return None
    return _of_neighbour(source) or _of_digest(source.weights)


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether these are transformers' names of a CLIP, and not those of a SigLIP."""
    return "visual_projection.weight" in state and "text_projection.weight" in state


def _of_transformers(source: Source, called: Called) -> Said | None:
    """What the configuration beside transformers' weights says."""
    path = source.weights.with_name("config.json")
    if path.is_file():
        towers = [read_json(path).get(tower) or {} for tower in ("text_config", "vision_config")]
        # which transformers leaves unsaid where it is the quick one
        return Said(towers[1].get("hidden_act", "quick_gelu") == "quick_gelu", f"{path.name} beside it says")
    if source.quick is not None:
        return None
    raise ValueError(
        f"{called.weights} {source.weights.name} holds transformers' CLIP weights, which do not say what "
        "they were trained with: put the config.json of their model beside the file, or name a tag of "
        f"{called.name} as ARCHITECTURE/TAG"
    )


def _of_neighbour(source: Source) -> Said | None:
    """What open_clip's configuration beside the weights says, if it is of the architecture that was named."""
    path = source.weights.with_name(CONFIGURATION)
    settings = read_json(path) if path.is_file() else None
    model = settings.get("model_cfg") if isinstance(settings, dict) else None
    if not isinstance(model, dict) or not _agree(model, source.config):
        return None
    return Said(bool(model.get("quick_gelu")), f"{path.name} beside it says")


def _agree(one: dict, other: dict) -> bool:
    """Whether two configurations are of the same sizes, as far as both say them."""
    parts = [(one.get(part), other.get(part)) for part in ("vision_cfg", "text_cfg")]
    return one.get("embed_dim") == other.get("embed_dim") and all(
        isinstance(a, dict) and isinstance(b, dict) and all(a[key] == b[key] for key in a.keys() & b.keys())
        for a, b in parts
    )


def _of_digest(path: Path) -> Said | None:
    """What open_clip knows of a file that it would fetch itself, whatever it is called here."""
    known = _digests()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = known.get(digest) or known.get(digest[:8])
    return found and Said(found[1], f"its digest, that of {found[0]}, says")


def _digests() -> dict[str, tuple[str, bool]]:
    """Which weights have a digest, or its first eight digits, in their address, and if they are quick."""
    open_clip = import_open_clip()
    found = {}
    for architecture, tag in open_clip.list_pretrained():
        about = open_clip.get_pretrained_cfg(architecture, tag)
        match = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.\w+$", about.get("url") or "")
        if match:
            which = f"{architecture.removesuffix(QUICK)}/{tag}"
            found[match[1] or match[2]] = which, bool(about.get("quick_gelu"))
    return found
