"""Which job a process belongs to: the processes of one must choose the same kernels.

Jobs are recognised by what torchrun, Slurm's srun, Open MPI, MPICH and Intel MPI tell each process that they
start, and by an initialised ``torch.distributed``, whoever has started it. Not recognised are processes that
somebody starts by hand and that ask before they call ``init_process_group`` (``file://``, ``tcp://``), and
those that talk to each other by other means. On how many machines a job runs is known only where its launcher
says so: ``torch.distributed`` alone counts as one machine. Where such processes must agree, run ``geokernels
tune`` on each machine first, or set ``GEOKERNELS_PROOF``.

``SLURM_NTASKS`` does not count: a batch script has it, too, and what it runs without srun is alone.
"""

import os
from typing import NamedTuple

import torch


class Launcher(NamedTuple):
    """The variables by which a launcher tells a process about its job.

    Attributes:
        processes: How many there are.
        here: How many of them on this machine.
        names: What tells the job from others; a launcher may leave some out.
    """

    processes: str
    here: str
    names: tuple[str, ...]


LAUNCHERS = (
    Launcher("WORLD_SIZE", "LOCAL_WORLD_SIZE", ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")),
    Launcher(
        "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")
    ),
    # of MPICH and Intel MPI, which have no name for a job
    Launcher("PMI_SIZE", "MPI_LOCALNRANKS", ("PMI_JOBID",)),
    Launcher("SLURM_STEP_NUM_TASKS", "", ("SLURM_JOB_ID", "SLURM_STEP_ID")),
)
MACHINES = "SLURM_STEP_NUM_NODES"


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
        """The one that this process belongs to."""
        told = [launcher for launcher in LAUNCHERS if _count(launcher.processes) > 1]
        if told:
            word = " ".join(f"{name}={os.environ.get(name, '')}" for name in told[0].names)
        elif (size := _size_of_group()) > 1:
            word = f"torch.distributed of {size}"
        else:
            return cls("", 1)
        machines = [-(-_count(each.processes) // _count(each.here)) for each in told if _count(each.here)]
        return cls(word, max(1, *machines, _count(MACHINES)))


def _size_of_group() -> int:
    """How many processes torch.distributed has brought together; 1 where nobody has asked it to."""
    group = torch.distributed
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1


def _count(name: str) -> int:
    said = os.environ.get(name, "")
    return int(said) if said.isdecimal() else 0
