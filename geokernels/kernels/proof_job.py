"""Which job a process belongs to: the processes of one must choose the same kernels."""

import os
from typing import NamedTuple


class Job(NamedTuple):
    """The processes that compute one thing together.

    Attributes:
        word: What tells it from other jobs; empty for a process of its own.
        machines: How many it runs on, as far as anybody says.
    """

    word: str
    machines: int

    @classmethod
    def this(cls) -> "Job":
        """The one that this process belongs to, as torchrun and Slurm tell it."""
        if (total := _count("WORLD_SIZE")) > 1:
            machines = -(-total // (_count("LOCAL_WORLD_SIZE") or total))
            word = _said("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
        elif _count("SLURM_STEP_NUM_TASKS") > 1:
            machines, word = 1, _said("SLURM_JOB_ID", "SLURM_STEP_ID")
        else:
            return cls("", 1)
        return cls(word, max(machines, _count("SLURM_STEP_NUM_NODES")))


def _said(*names: str) -> str:
    return " ".join(f"{name}={os.environ.get(name, '')}" for name in names)


def _count(name: str) -> int:
    said = os.environ.get(name, "")
    return int(said) if said.isdecimal() else 0
