"""What the ranks of a group tell each other: rows, sums, and what they agree on.

Every rank sends to every other, so that whoever does not answer is known by its rank, and on every rank. A
sum over ranks is made of their parts in the order of the ranks: the same bits on each, and from run to run.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..kernels.dispatch import BackendError

TIMEOUT = 600.0  # seconds
MESSAGE = 4096  # bytes of a description
LONGEST = 500  # letters of a refusal in it
REFUSALS = {kind.__name__: kind for kind in (BackendError, TypeError, ValueError)}

Works = list[tuple[int | None, Any]]  # what is under way, and with which rank where that is known


class RankError(RuntimeError):
    """A rank of the group is gone, or did not answer in time; the message names it, on every other rank."""


class Ranks:
    """The ranks of a group, seen from one of them.

    Attributes:
        group: A group of ``torch.distributed``, or None for all processes.
        rank: Whose this one is, within the group.
        size: How many there are.
        timeout: Seconds for which an answer is waited for.
        step: What is being done, for messages.
    """

    def __init__(self, group: Any, timeout: float):
        if not dist.is_available() or not dist.is_initialized():
            raise ValueError(
                "torch.distributed must be initialised before rows can be spread over ranks; call "
                "torch.distributed.init_process_group and start the processes with torchrun"
            )
        self.group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group must have this process among its ranks, and has not")
        known = isinstance(timeout, int | float) and 0 < timeout < math.inf
        self.timeout = timeout if known else TIMEOUT
        self.step = "the start"

    def exchange(self, mine: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The rows of all ranks, in their order; rank ``r`` has ``counts[r]`` of them."""
        mine = mine.contiguous()
        rows = [mine if r == self.rank else _room(mine, count) for r, count in enumerate(counts)]
        others = [r for r in range(self.size) if r != self.rank]
        self._wait(self._post([(r, mine) for r in others], [(r, rows[r]) for r in others]))
        return rows

    def ring(self, mine: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """The same, one rank after another from this one on; the next is on its way meanwhile.

        Rows come from the rank that owns them, and are not handed on: whoever does not answer is known.
        """
        block = mine = mine.contiguous()
        for step in range(1, self.size):
            there = (self.rank + step) % self.size
            following = _room(mine, counts[there])
            works = self._post([((self.rank - step) % self.size, mine)], [(there, following)])
            yield block
            self._wait(works)
            block = following
        yield block

    def total(self, mine: Tensor) -> Tensor:
        """The sum of what the ranks have, float64 in the shape of ``mine``."""
        first, *others = self.exchange(mine.double()[None], [1] * self.size)
        total = first[0]
        for other in others:
            total = total + other[0]
        return total

    def first(self, mine: Tensor) -> Tensor:
        """What rank 0 has."""
        return self.exchange(mine[None], [1] * self.size)[0][0]

    def whole(self, counts: Sequence[int], *columns: Tensor) -> tuple[Tensor, ...]:
        """Vectors of which every rank has its rows, whole."""
        return torch.cat(self.exchange(torch.stack(columns, -1), counts)).unbind(-1)

    def agree(self, step: str, describe: Callable[[], tuple[dict, dict, Any]]) -> tuple[list[dict], Any]:
        """Come together at a step, with the same settings.

        Args:
            step: What is about to be done.
            describe: Checks what this rank was given, and returns what must be alike on all ranks, what is
                its own, and whatever it has made.

        Returns:
            What is each rank's own, and what was made here.

        Raises:
            ValueError: On every rank, if one was given what it refuses, or ranks disagree.
            TypeError: Likewise.
            BackendError: Likewise.
            RankError: If a rank does not come.
        """
        self.step = step
        refusal, alike, own, made = None, {}, {}, None
        try:
            alike, own, made = describe()
        except (TypeError, ValueError, BackendError) as error:
            kind = next(kind for kind in REFUSALS.values() if isinstance(error, kind))
            refusal = kind.__name__, str(error)[:LONGEST]
        told = self._told({"step": step, "refusal": refusal, "alike": alike, "own": own})
        _require_agreement(told)
        return [one["own"] for one in told], made

    def _told(self, mine: dict) -> list[dict]:
        encoded = json.dumps(mine).encode()
        message = torch.zeros(MESSAGE, dtype=torch.uint8, device="cpu")
        message[: len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        if dist.get_backend(self.group) == "nccl":
            message = message.cuda()
        messages = self.exchange(message[None], [1] * self.size)
        return [json.loads(bytes(one[0].tolist()).rstrip(b"\0")) for one in messages]

    def _post(self, sends: list[tuple[int, Tensor]], receives: list[tuple[int, Tensor]]) -> Works:
        """Begin to send and to receive; of tensors without elements neither end knows."""
        asked = [(dist.isend, "group_dst", *one) for one in sends]
        asked += [(dist.irecv, "group_src", *one) for one in receives]
        asked = [one for one in asked if one[-1].numel()]
        if asked and asked[0][-1].is_cuda:
            # NCCL wants to know all that goes on at once
            of_group = [dist.P2POp(run, x, group=self.group, group_peer=r) for run, _, r, x in asked]
            return [(None, work) for work in dist.batch_isend_irecv(of_group)]
        works: Works = []
        for run, end, rank, x in asked:
            try:
                works.append((rank, run(x, group=self.group, **{end: rank})))
            except RuntimeError:  # it is known to be gone
                works.append((rank, None))
        return works

    def _wait(self, works: Works) -> None:
        end, silent = time.monotonic() + self.timeout, set()
        for rank, work in works:
            left = timedelta(seconds=max(end - time.monotonic(), 1e-3))
            try:
                answered = work is not None and work.wait(left)
            except RuntimeError:
                answered = False
            if not answered:
                silent.add(rank)
        if not silent:
            return
        named = [f"rank {rank}" for rank in sorted(silent - {None})] or ["a rank"]
        who = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
        raise RankError(
            f"{who} {'is' if len(named) == 1 else 'are'} gone, or did not answer within {self.timeout:g} s, "
            f"at {self.step}"
        )


def _room(like: Tensor, count: int) -> Tensor:
    return like.new_empty((count, *like.shape[1:]))


def _require_agreement(told: list[dict]) -> None:
    for rank, one in enumerate(told):
        if one["refusal"]:
            kind, sentence = one["refusal"]
            raise REFUSALS[kind](f"rank {rank}: {sentence}")
    for rank, one in enumerate(told):
        if one["step"] != told[0]["step"]:
            raise ValueError(
                f"all ranks must call the same, in the same order, got {told[0]['step']} on rank 0 and "
                f"{one['step']} on rank {rank}"
            )
        for name, wanted in told[0]["alike"].items():
            if one["alike"][name] != wanted:
                kind = TypeError if name in ("dtype", "device") else ValueError
                raise kind(
                    f"{name} must be the same on every rank, got {wanted} on rank 0 and "
                    f"{one['alike'][name]} on rank {rank}"
                )
