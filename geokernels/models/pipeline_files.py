"""What a pipeline of diffusers is read from: a folder, its variant, a repository of the hub, or one file."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._checks import is_finite, reason_of
from .._files import read_json
from .checkpoint_kinds import kind_of
from .embedded import embedded, verify
from .tensor_files import mistaken, read_state, unreadable

WORLD = "world-diffusion"  # folder of the embedded pipeline
FLOW = "world-flow"  # of its twin, a rectified flow
EMBEDDED = {"world": WORLD, FLOW: FLOW}  # folders of all of them, by their names
HUB = re.compile(r"[\w.-]+/[\w.-]+")
# a file of weights in a pipeline's folder, of several perhaps, of a variant perhaps
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:-\d+-of-\d+)?(?:\.([\w-]+?))?(?:-\d+-of-\d+)?\.safetensors"
)
# which pipeline a single file is of, by the kind that diffusers tells it to be
SINGLE = (
    (r"v1|v2", "StableDiffusionPipeline"),
    (r"xl_base|playground.*", "StableDiffusionXLPipeline"),
    (r"sd3.*", "StableDiffusion3Pipeline"),
    (r"flux-(dev|schnell)", "FluxPipeline"),
)


# What a folder is that has these files, and no index.
OTHERS = (
    ("adapter_config.json", "; it is a LoRA: merge it into its model, and give the folder of that"),
    (
        "pytorch_lora_weights.safetensors",
        "; it is a LoRA: merge it into its model, and give the folder of that",
    ),
    ("open_clip_config.json", "; it is a CLIP of open_clip: give it as --clip local-dir:FOLDER"),
    ("config.json", "; it is one model of transformers or diffusers, and not a whole pipeline"),
)


class PipelineCalled(NamedTuple):
    """What messages call the arguments of the loaders of pipelines."""

    name: str = "name"
    variant: str = "variant"
    config: str = "config"


ARGUMENTS = PipelineCalled()


def source_of(name: str | Path, called: PipelineCalled = ARGUMENTS) -> Path | str:
    """The folder or file that ``name`` means, or the hub's name it is.

    Raises:
        FileNotFoundError: If it is none of these.
    """
    if name in EMBEDDED:
        folder = embedded(EMBEDDED[name])
        verify(folder)
        return folder
    if Path(name).exists():
        return Path(name).resolve()
    if isinstance(name, str) and HUB.fullmatch(name) and not name.startswith("."):
        return name
    raise FileNotFoundError(
        f"{called.name} must be {' or '.join(map(repr, EMBEDDED))}, an existing folder or file, or "
        f"'organisation/model' of the hub, found no folder {name}"
    )


def class_of(folder: Path) -> str | None:
    """The class of the pipeline that ``folder`` says it holds."""
    index = folder / "model_index.json"
    if not index.is_file():
        hint = next((said for file, said in OTHERS if (folder / file).is_file()), "")
        raise ValueError(f"a pipeline's folder must hold model_index.json, found none in {folder}{hint}")
    return read_json(index).get("_class_name")


def require_kind(kind: str | None, kinds: tuple[str, ...], source: Path | str) -> None:
    """Refuse a pipeline that is of none of ``kinds``."""
    if kind not in kinds:
        wanted = kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise ValueError(f"a pipeline must be a {wanted}, got {kind} in {source}")


def variant_of(folder: Path, wanted: str | None, called: PipelineCalled = ARGUMENTS) -> str | None:
    """Which variant of its weights to read: the one that is wanted, or the only one there is.

    Raises:
        ValueError: If the folder does not have it, or none is wanted and it has several and no other.
    """
    parts: dict[Path, set[str | None]] = {}
    for file in folder.glob("*/*.safetensors"):
        match = WEIGHTS.fullmatch(file.name)
        if match:
            parts.setdefault(file.parent, set()).add(match[1])
    known = sorted({variant for variants in parts.values() for variant in variants if variant})
    if wanted is not None:
        if wanted not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"{called.variant} must be one of {has}, which {folder} has, got {wanted!r}")
        return wanted
    bound = [variants for variants in parts.values() if None not in variants]
    if not bound:
        return None
    common = set.intersection(*bound)
    if len(common) != 1:
        raise ValueError(f"{called.variant} must be one of {', '.join(known)}, which {folder} has, got none")
    return common.pop()


def own_parts(folder: Path, dtype: torch.dtype, variant: str | None) -> dict[str, nn.Module | None]:
    """The parts of a folder that diffusers would not read, or not as strictly as ours are read.

    Those that the folder says it does not have are None: diffusers asks for them even so. Of what is
    transformers', which would fill what is missing with random weights, every weight must be there.

    Raises:
        ValueError: If a weight is missing; names the first.
    """
    import transformers

    networks: dict[str, nn.Module | None] = {}
    for part, kind in read_json(folder / "model_index.json").items():
        if kind == [None, None]:
            networks[part] = None
            continue
        library, name = kind if isinstance(kind, list) and len(kind) == 2 else (None, None)
        of_class = getattr(transformers, name, None) if library == "transformers" and name else None
        if not (isinstance(of_class, type) and issubclass(of_class, transformers.PreTrainedModel)):
            continue
        if part == "safety_checker" or not (folder / part).is_dir():
            continue
        own = variant if variant and any((folder / part).glob(f"*.{variant}*")) else None
        how = {"dtype": dtype, "variant": own, "use_safetensors": True, "local_files_only": True}
        networks[part] = read_whole(of_class, folder / part, **how)
    return networks


def read_whole(of_class, source: Path | str, **how) -> nn.Module:
    """A model of transformers, of which no weight may be missing, which it would fill with random weights.

    Raises:
        ValueError: If one is; names the first.
    """
    model, report = of_class.from_pretrained(str(source), output_loading_info=True, **how)
    if report["missing_keys"]:
        raise ValueError(f"{sorted(report['missing_keys'])[0]!r} is missing in {Path(source).name}")
    return model


def load_single(
    diffusers,
    path: Path,
    kinds: tuple[str, ...],
    config: str | Path | None,
    called: PipelineCalled = ARGUMENTS,
    **options,
):
    """A pipeline from one file that holds all its weights, as trainings and civitai have them.

    Args:
        diffusers: The library.
        path: A file of safetensors, or of ``torch.save`` that holds tensors alone.
        kinds: Classes that it may be of.
        config: A folder of the pipeline without its weights; None for the hub's that diffusers knows.
        called: What messages call the arguments.
        options: Of every loading, and of the classes that know them.

    Raises:
        ValueError: If the file is damaged, of another kind, or lacks parts, or there is no configuration.
    """
    from diffusers.loaders import single_file_utils as of_diffusers

    tensors = _shapes(called.name, path)
    if not any(
        re.match(r"(model\.)?diffusion_model\.|(joint|double)_(transformer_)?blocks\.", k) for k in tensors
    ):
        kind = kind_of(tensors) or f"it begins with {next(iter(tensors), 'nothing')!r}"
        raise ValueError(
            f"{called.name} must be a whole diffusion model where it is a file, {path.name} is none: {kind}"
        )
    if config is None:
        kind = of_diffusers.infer_diffusers_model_type(tensors)
        wanted = next((name for pattern, name in SINGLE if re.fullmatch(pattern, kind)), kind)
        where = of_diffusers.fetch_diffusers_config(tensors)["pretrained_model_name_or_path"]
    else:
        if not Path(config).is_dir():
            raise FileNotFoundError(f"{called.config} must be an existing folder, found none at {config}")
        where, wanted = str(Path(config).resolve()), class_of(Path(config))
    require_kind(wanted, kinds, path.name)
    checks = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    options |= checks if wanted == "StableDiffusionPipeline" else {}
    try:
        return getattr(diffusers, wanted).from_single_file(
            str(path), config=where, local_files_only=config is not None, **options
        )
    except Exception as error:  # of diffusers, transformers, or the hub's library
        needs = f"{called.config} must name a folder of {where} without its weights"
        remedy = f"{needs}: model_index.json, and of each part the .json files and the tokenizer's"
        raise ValueError(
            f"the model in {path.name} could not be read ({reason_of(error)}); "
            + (remedy if config is None else f"every part that {where} has must be in the file, and fit it")
        ) from error


def require_finite_parts(parts: Mapping[str, object], source: Path | str) -> None:
    """Refuse parts, by name, of which a weight is missing or not finite; names the first."""
    for part, module in parts.items():
        for name, value in module.state_dict().items() if isinstance(module, nn.Module) else ():
            owner = f"{part}'s " if part else ""
            if value.is_meta:
                raise ValueError(f"the model in {source} could not be read ({owner}{name!r} is missing)")
            if not is_finite(value):
                raise ValueError(
                    f"weights must be finite, got NaN or infinity in {owner}{name!r} of {source}"
                )


@contextmanager
def without_bars(where: bool) -> Iterator[None]:
    """Leave out the libraries' progress bars, for what is read before one could be looked at."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [part for part in (of_diffusers, of_transformers) if where and part.is_progress_bar_enabled()]
    for part in shown:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in shown:
            part.enable_progress_bar()


def read_pipeline(source: Path | str, load):
    """What ``load`` returns; a sentence about ``source`` if it fails."""
    try:
        folders = [embedded(name) for name in EMBEDDED.values()]
        with without_bars(where=isinstance(source, Path) and any(map(source.is_relative_to, folders))):
            return load()
    except Exception as error:
        if isinstance(source, str):
            raise FileNotFoundError(
                f"{source!r} could not be fetched from the hub, nor is it a folder ({reason_of(error)})"
            ) from error
        for file in sorted(source.glob("**/*.safetensors")):
            if said := mistaken(file):
                where = file.relative_to(source)
                raise ValueError(f"the model in {source} could not be read: {where} {said}") from error
        raise ValueError(
            f"the model in {source} could not be read ({reason_of(error)}); "
            "every weight must be whole, fit its configuration, and be saved as safetensors"
        ) from error


def _shapes(name: str, path: Path) -> Mapping[str, Tensor]:
    """Every tensor of a file by its name, without its values where the file allows it."""
    if path.suffix != ".safetensors":
        return read_state(name, path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise unreadable(name, path, error) from error
    return {key: torch.empty(shape, dtype=torch.float32, device="meta") for key, shape in shapes.items()}
