"""Where a CLIP of open_clip comes from: its configuration, weights and tokenizer, as its name says."""

import difflib
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from .._checks import reason_of
from .._files import read_json
from .embedded import embedded, verify
from .tensor_files import require_file

# Embedded models and their files' names without ending. The second only evaluates: no gradient passes it.
EVALUATION = "world-evaluation"
EMBEDDED = {"world": "world-clip.safetensors", EVALUATION: "world-evaluation-clip.safetensors"}
HUB, FOLDER, OPEN_CLIP = "hf-hub:", "local-dir:", "open_clip:"
CONFIGURATION = "open_clip_config.json"
# the weights of a folder in open_clip's format, the preferred first
WEIGHTS = tuple(
    f"{name}.{ending}"
    for ending in ("safetensors", "bin", "pth", "pt")
    for name in ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
)


class Called(NamedTuple):
    """What messages call the arguments of ``load_clip``."""

    name: str = "name"
    weights: str = "weights"
    tokenizer: str = "tokenizer"


ARGUMENTS = Called()


class Source(NamedTuple):
    """All that is needed to build a model of open_clip.

    Attributes:
        name: As it was asked for.
        config: Open_clip's configuration.
        preprocess: How pictures are prepared, as far as that is not open_clip's standard.
        weights: Their file.
        quick: Whether it must have been trained with the quick GELU; None if only the weights can say.
        folder: Where its tokenizer is, and the configuration of a text tower of transformers; None for the
            hub, or where the tokenizer comes with open_clip.
        architecture: Open_clip's name of it; None where a file describes it.
    """

    name: str
    config: dict
    preprocess: dict
    weights: Path
    quick: bool | None
    folder: Path | None
    architecture: str | None = None

    @property
    def hub_tokenizer(self) -> str | None:
        """The hub's name of the tokenizer; None where it comes with open_clip."""
        text = self.config["text_cfg"]
        return text.get("hf_tokenizer_name") or text.get("hf_model_name")


def import_open_clip():
    """``open_clip``, which is imported on use.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ImportError('CLIP models need open_clip: pip install "geokernels[morph]"') from error
    return open_clip


def find_clip(
    name: str, weights: str | Path | None, tokenizer: str | Path | None, called: Called = ARGUMENTS
) -> Source:
    """What ``name`` stands for, with its weights fetched where they are not given; see ``load_clip``."""
    name = name.removeprefix(OPEN_CLIP)
    if name in EMBEDDED:
        source = _embedded(name, weights)
    elif name.startswith((HUB, FOLDER)):
        if weights is not None:
            raise ValueError(
                f"{called.weights} must be left out for {name!r}, which has its own, got {weights}; a folder "
                f"with {CONFIGURATION} and weights is {FOLDER}FOLDER"
            )
        source = _of_hub(name, called) if name.startswith(HUB) else _of_folder(name, called)
    else:
        source = _of_architecture(name, weights, called)
    if tokenizer is None:
        return source
    if source.hub_tokenizer is None:
        raise ValueError(
            f"{called.tokenizer} must be left out for {name!r}, whose tokenizer comes with open_clip, "
            f"got {tokenizer}"
        )
    if not Path(tokenizer).is_dir():
        raise FileNotFoundError(f"{called.tokenizer} must be an existing folder, found none at {tokenizer}")
    return source._replace(folder=Path(tokenizer))


def require_name(name: str, called: Called = ARGUMENTS) -> None:
    """Refuse a name that stands for nothing, before anything is fetched or read.

    Raises:
        ValueError: If open_clip knows no such architecture.
        FileNotFoundError: If there is no such folder.
    """
    name = name.removeprefix(OPEN_CLIP)
    if name.startswith(FOLDER):
        _of_folder(name, called)
    elif name not in EMBEDDED and not name.startswith(HUB):
        architecture, _ = _split(name)
        if import_open_clip().get_model_config(architecture) is None:
            raise _unknown(name, called)


def needs_file(name: str) -> bool:
    """Whether ``name`` says nothing of where its weights are: an architecture alone."""
    name = name.removeprefix(OPEN_CLIP)
    if name in EMBEDDED or name.startswith((HUB, FOLDER)):
        return False
    return "/" not in name and ":" not in name


def needs_tokenizer(name: str) -> bool:
    """Whether the tokenizer of an architecture of open_clip is on the hub."""
    if name.startswith((HUB, FOLDER)):
        return False
    architecture, _ = _split(name.removeprefix(OPEN_CLIP))
    text = (import_open_clip().get_model_config(architecture) or {}).get("text_cfg", {})
    return bool(text.get("hf_tokenizer_name") or text.get("hf_model_name"))


def _embedded(name: str, weights: str | Path | None) -> Source:
    path = embedded(EMBEDDED[name]) if weights is None else Path(weights)
    if weights is None:
        verify(require_file("weights", path))
    config = read_json(require_file("configuration", path.with_suffix(".json")))
    return Source(name, config, {}, require_file("weights", path), None, None)


def _split(name: str) -> tuple[str, str | None]:
    """Architecture and tag of ``ARCH``, ``ARCH/TAG``, ``ARCH:TAG`` or a name of OpenAI's, as far as known."""
    known = import_open_clip().list_models()
    if name in known:
        return name, None
    openai = name.removesuffix("px").replace("/", "-").replace("@", "-")
    if openai in known:
        return openai, None
    for separator in "/:":
        architecture, _, tag = name.partition(separator)
        if architecture in known and tag:
            return architecture, tag
    return name, None


def _of_architecture(name: str, weights: str | Path | None, called: Called) -> Source:
    """An architecture, with the file that is given, or the weights of its tag."""
    open_clip = import_open_clip()
    architecture, tag = _split(name)
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise _unknown(name, called)
    if weights is None and tag is None and "/" in name:
        tag = "openai"  # ViT-B/32 is what OpenAI calls its own model
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag is None:
        if weights is None:
            example = f"{architecture}/{tags[-1]}" if tags else f"{FOLDER}FOLDER"
            raise ValueError(
                f"{called.weights} must name a file for {name!r}, got None; or name a tag of its weights in "
                f"{called.name}, such as {example}"
            )
        path = require_file(called.weights, weights)
        return Source(name, config, _usual(architecture), path, None, None, architecture)
    about = open_clip.get_pretrained_cfg(architecture, tag)
    if not about:
        raise ValueError(
            f"{called.name} must name a tag of {architecture} ({', '.join(tags) or 'it has none'}), "
            f"got {tag!r}"
        )
    if weights is None:
        path = _fetched(name, f"{architecture}/{tag}", about, called)
    else:
        path = require_file(called.weights, weights)
    return Source(name, config, about, path, bool(about.get("quick_gelu")), None, architecture)


def _unknown(name: str, called: Called) -> ValueError:
    near = difflib.get_close_matches(name, import_open_clip().list_models(), n=3, cutoff=0.7)
    if Path(name).is_dir():
        hint = f"; for a folder with {CONFIGURATION} type {FOLDER}{name}"
    elif Path(name).is_file():
        hint = f"; give the file as {called.weights}, and its architecture as {called.name}"
    else:
        hint = f"; near it are {', '.join(near)}" if near else ""
    return ValueError(
        f"{called.name} must be world, an architecture of open_clip, ARCHITECTURE/TAG, "
        f"{HUB}organisation/model or {FOLDER}FOLDER, got {name!r}{hint}"
    )


def _usual(architecture: str) -> dict:
    """How pictures are prepared for an architecture, where all weights that open_clip knows agree on it."""
    open_clip = import_open_clip()
    ways = [
        {key: about[key] for key in ("mean", "std", "interpolation", "resize_mode")}
        for tag in open_clip.list_pretrained_tags_by_model(architecture)
        for about in (open_clip.get_pretrained_cfg(architecture, tag),)
    ]
    return ways[0] if ways and all(way == ways[0] for way in ways) else {}


def _fetched(name: str, exact: str, about: dict, called: Called) -> Path:
    """The weights of a tag, from the cache or the net; ``exact`` says the same as ``name`` beside a file."""
    try:
        return Path(import_open_clip().download_pretrained(about))
    except Exception as error:  # of the hub's library, urllib, or the file system
        where = about.get("hf_hub", "").strip("/")
        where = f"{where} of the hub" if where else about.get("url", "")
        raise OSError(
            f"{called.name} {name!r} needs weights that could not be fetched from {where} "
            f"({reason_of(error)}); fetch them elsewhere and give their file as {called.weights}, with "
            f"{exact} as {called.name}"
        ) from error


def _of_hub(name: str, called: Called) -> Source:
    """A repository of the hub in open_clip's format."""
    from open_clip.pretrained import download_pretrained_from_hf

    model = name.removeprefix(HUB)
    try:
        config = Path(download_pretrained_from_hf(model, filename=CONFIGURATION))
        weights = Path(download_pretrained_from_hf(model))
    except Exception as error:  # of the hub's library, or the file system
        raise OSError(
            f"{called.name} {name!r} needs {CONFIGURATION} and the weights beside it, which could not be "
            f"fetched from {model} of the hub ({reason_of(error)}); fetch the repository elsewhere and give "
            f"its folder as {FOLDER}FOLDER"
        ) from error
    return _described(name, config, weights, None)


def _of_folder(name: str, called: Called) -> Source:
    """A folder in open_clip's format."""
    folder = Path(name.removeprefix(FOLDER))
    if not folder.is_dir():
        raise FileNotFoundError(f"{called.name} must be {FOLDER} and a folder, found none at {folder}")
    config = folder / CONFIGURATION
    if not config.is_file():
        raise FileNotFoundError(
            f"{called.name} must be {FOLDER} and a folder that holds {CONFIGURATION}, {folder} does not; "
            f"give the file of its weights as {called.weights}, and their architecture as {called.name}"
        )
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise FileNotFoundError(
            f"{called.name} must be {FOLDER} and a folder that holds weights, such as {WEIGHTS[0]}, "
            f"{folder} does not"
        )
    return _described(name, config, weights, folder)


def _described(name: str, config: Path, weights: Path, folder: Path | None) -> Source:
    """A model whose configuration is a file of open_clip's."""
    settings = read_json(config)
    model = settings.get("model_cfg") if isinstance(settings, dict) else None
    if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
        raise ValueError(f"{config} must have model_cfg with embed_dim, vision_cfg and text_cfg")
    return Source(name, deepcopy(model), settings.get("preprocess_cfg", {}), weights, None, folder)


def tokenizer_of(source: Source, called: Called = ARGUMENTS) -> Any:
    """The tokenizer of a model.

    Raises:
        ValueError: If it is that of the hub, and neither there nor in a folder.
    """
    open_clip, text = import_open_clip(), source.config["text_cfg"]
    about = {"context_length": text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {})}
    if source.hub_tokenizer is None:
        return open_clip.SimpleTokenizer(**about)
    try:
        return open_clip.tokenizer.HFTokenizer(
            str(source.folder or source.hub_tokenizer), tokenizer_mode=text.get("tokenizer_mode"), **about
        )
    except Exception as error:  # of transformers, tokenizers, or the hub's library
        raise _no_tokenizer(source, error, called) from error


def text_tower_of(source: Source, called: Called = ARGUMENTS) -> dict:
    """The configuration of the text tower, with what transformers must know of it where it is one of theirs.

    Raises:
        ValueError: If that is neither on the hub nor in a folder.
    """
    text = dict(source.config["text_cfg"])
    if not text.get("hf_model_name"):
        return text
    import transformers

    if source.folder is not None:
        text["hf_model_name"] = str(source.folder)
    text["hf_model_pretrained"] = False  # the weights come with the picture's
    try:
        transformers.AutoConfig.from_pretrained(text["hf_model_name"])
    except Exception as error:  # of transformers, or the hub's library
        raise _no_tokenizer(source, error, called) from error
    return text


def _no_tokenizer(source: Source, error: Exception, called: Called) -> ValueError:
    where = f"the folder {source.folder}" if source.folder else "the hub"
    what = "tokenizer's files"
    if source.config["text_cfg"].get("hf_model_name"):
        what = "config.json and the tokenizer's files"
    return ValueError(
        f"{source.name!r} reads texts by {source.hub_tokenizer!r}, which could not be read from {where} "
        f"({reason_of(error)}); give a folder with its {what} as {called.tokenizer}"
    )
