"""What ComfyUI calls a conditioning, as the keys of a path of prompts, and back.

A conditioning is a list of entries, each a tensor of rows, (1, L, D), with a dictionary of options beside it,
of which ``pooled_output``, (1, P), is the vector that SDXL reads besides.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from geokernels.models.text_to_image import CONTENT, END, PADDING, START, Embedding
from geokernels.pipelines.interpolate.couplings import PromptPath, prompt_path

Conditioning = list  # of [rows, options]
POOLED = "pooled_output"
KINDS = "geokernels_row_kinds"  # what each row stands for, of our own encoder
STREAMS = ("l", "g", "h")  # ComfyUI's names of CLIPs; rows of two lie side by side
BEGIN_ID, END_ID = 49406, 49407  # of every CLIP


def kinds_of(tokens: Mapping[str, Sequence], rows: int) -> Tensor:
    """What each row of an encoded text stands for, chunk by chunk, ``(rows,)`` int64.

    Args:
        tokens: As ComfyUI's CLIP tokenizes: lists of chunks, each of pairs of a token and its weight, by the
            name of the text encoder.
        rows: How many the encoded text has.

    Raises:
        ValueError: If the rows are not those of CLIP's tokens.
    """
    streams = [tokens[name] for name in STREAMS if name in tokens]
    longest = max((sum(map(len, chunks)) for chunks in streams), default=0)
    if set(tokens) - set(STREAMS) or longest != rows:
        raise ValueError(
            "rows must be those of CLIP alone to be told apart, as in Stable Diffusion 1, 2 and XL, "
            f"got {rows} rows of {', '.join(tokens)}; take the usual encoder, and rows 'all'"
        )
    chunks = next(chunks for chunks in streams if sum(map(len, chunks)) == longest)
    return torch.tensor([kind for chunk in chunks for kind in _kinds_of_chunk(chunk)])


def _kinds_of_chunk(chunk: Sequence[tuple]) -> list[int]:
    # an embedding from a file is a tensor in a token's place
    ids = [pair[0] if isinstance(pair[0], int) else None for pair in chunk]
    last = ids.index(END_ID) if END_ID in ids else len(ids)
    kinds = [CONTENT if i < last else PADDING for i in range(len(ids))]
    if ids and ids[0] == BEGIN_ID:
        kinds[0] = START
    if last < len(ids):
        kinds[last] = END
    return kinds


def transport(
    keys: Mapping[str, Conditioning],
    times: Sequence[float],
    *,
    coupling: str,
    rows: str,
    eps: float,
    seed: int,
) -> list[Conditioning]:
    """Conditionings at times on the way from the first key to the last, by :func:`prompt_path`.

    Entries are coupled with those of the same place in the next key, and keep the options of the first.

    Args:
        keys: Two or more, by what messages call them.
        times: Each in [0, 1].
        coupling: See :func:`prompt_path`.
        rows: Likewise.
        eps: Likewise.
        seed: Of the random coupling.

    Raises:
        ValueError: If keys do not fit together; says which, and why.
    """
    paths = []
    for entries in _aligned(keys):
        embeddings = [_embedding(name, entry, rows) for name, entry in entries.items()]
        chance = torch.Generator().manual_seed(seed)
        path = prompt_path(embeddings, coupling=coupling, rows=rows, eps=eps, generator=chance)
        paths.append((path, _options(entries)))
    return [[_entry(path, options, time) for path, options in paths] for time in times]


def batched(conditionings: Sequence[Conditioning]) -> Conditioning:
    """One conditioning whose entries hold those of all, one after the other.

    Raises:
        ValueError: If they differ in more than numbers.
    """
    entries = []
    names = [f"conditioning {i}" for i in range(len(conditionings))]
    for same in _aligned(dict(zip(names, conditionings))):
        options = _options(same)
        sizes = [tuple(rows.shape[1:]) for rows, _ in same.values()]
        if len(set(sizes)) > 1:
            raise ValueError(
                "conditionings must have rows alike in number and width for one batch, got "
                f"{' and '.join(map(str, sorted(set(sizes))))}; sample the list instead"
            )
        pooled = [entry[1][POOLED] for entry in same.values() if entry[1].get(POOLED) is not None]
        if len(pooled) not in (0, len(same)):
            raise ValueError("every conditioning must have a pooled vector, or none, got some of each")
        if pooled:
            options[POOLED] = torch.cat(pooled)
        entries.append([torch.cat([rows for rows, _ in same.values()]), options])
    return entries


def _aligned(keys: Mapping[str, Conditioning]) -> list[dict[str, list]]:
    """The entries of all keys, place by place."""
    (first, start), *others = keys.items()
    for name, other in others:
        if len(other) != len(start):
            raise ValueError(
                f"{name} must have as many entries as {first}, {len(start)}, got {len(other)}; "
                "combine conditionings after they were moved"
            )
    if not start:
        raise ValueError(f"{first} must have at least one entry, got none")
    return [{name: key[i] for name, key in keys.items()} for i in range(len(start))]


def _embedding(name: str, entry: Sequence, rows: str) -> Embedding:
    tensor, options = entry
    if tensor.dim() != 3 or len(tensor) != 1:
        raise ValueError(f"{name} must hold one prompt, (1, L, D), got {tuple(tensor.shape)}")
    mask = options.get("attention_mask")
    if mask is not None and not bool((mask == 1).all()):
        raise ValueError(f"{name} must have no masked rows, got an attention_mask that is not all ones")
    kinds = options.get(KINDS)
    if kinds is None:
        if rows != "all":
            raise ValueError(
                f"{name} must say which of its rows are padding for rows {rows!r}: encode it by "
                "'CLIP Text Encode (geokernels)', or take 'all'"
            )
        kinds = torch.full(tensor.shape[1:2], CONTENT)
    pooled = options.get(POOLED)
    return Embedding(tensor[0], kinds, None if pooled is None else pooled[0])


def _options(entries: Mapping[str, Sequence]) -> dict:
    """What stands beside the rows, the same in all: that of the first, without what belongs to its text."""
    (first, start), *others = (
        (name, {k: v for k, v in entry[1].items() if k not in (POOLED, KINDS)})
        for name, entry in entries.items()
    )
    for name, other in others:
        for option in {**start, **other}:
            if option not in start or option not in other or not _equal(start[option], other[option]):
                raise ValueError(
                    f"{name} must have the options of {first}, but {option!r} differs; "
                    "set it after they were moved"
                )
    return start


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))


def _entry(path: PromptPath, options: Mapping, time: float) -> list:
    rows, pooled = path.at(time)
    beside = {} if pooled is None else {POOLED: pooled[None]}
    return [rows[None], {**options, **beside}]
