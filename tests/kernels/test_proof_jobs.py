"""Processes that compute one thing together are recognised, and choose the same kernels."""

import subprocess
import sys

import pytest
import torch

from geokernels.kernels import proof, proof_cache
from geokernels.kernels.proof_cache import Record
from geokernels.kernels.proof_job import Job
from geokernels.kernels.proof_runner import Outcome

from .proofs import KERNELS, KEY, NATIVE, PLAN, begin_anew, order

TOLD = {
    "torchrun": {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "7"},
    "Open MPI": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "PMIX_NAMESPACE": "7"},
    "MPICH": {"PMI_SIZE": "4", "MPI_LOCALNRANKS": "4"},
    "Slurm": {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "7"},
}
ON_TWO = {
    "torchrun": {"LOCAL_WORLD_SIZE": "2"},
    "Open MPI": {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
    "MPICH": {"MPI_LOCALNRANKS": "2"},
    "Slurm": {"SLURM_STEP_NUM_NODES": "2"},
}
NAMES = {"torchrun": "TORCHELASTIC_RUN_ID", "Open MPI": "PMIX_NAMESPACE", "Slurm": "SLURM_JOB_ID"}


def told(monkeypatch, variables: dict) -> Job:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Job.this()


class TestRecognised:
    """What launchers and torch.distributed say."""

    def test_a_process_of_its_own(self, gpu, monkeypatch):
        assert Job.this() == Job("", 1)
        # what a batch script says to what it runs without srun, and what launchers say to one process
        alone = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"}
        assert told(monkeypatch, alone) == Job("", 1)

    @pytest.mark.parametrize("launcher", TOLD)
    def test_of_a_launcher(self, gpu, monkeypatch, launcher):
        job = told(monkeypatch, TOLD[launcher])
        assert job.word
        assert job.machines == 1
        assert told(monkeypatch, ON_TWO[launcher]) == job._replace(machines=2)
        if launcher in NAMES:
            assert told(monkeypatch, {NAMES[launcher]: "8"}).word != job.word

    def test_of_torch_distributed(self, gpu, monkeypatch):
        group = torch.distributed
        monkeypatch.setattr(group, "is_initialized", lambda: True)
        for size, word in ((1, ""), (2, "torch.distributed of 2")):
            monkeypatch.setattr(group, "get_world_size", lambda size=size: size)
            assert Job.this() == Job(word, 1)
        monkeypatch.setattr(group, "is_available", lambda: False)
        assert Job.this() == Job("", 1)

    @pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
    def test_of_processes_that_met_by_a_file(self, gpu, tmp_path):
        script = (
            "import sys, torch.distributed as group\n"
            "from geokernels.kernels.proof_job import Job\n"
            "before = Job.this()\n"
            "group.init_process_group('gloo', f'file://{sys.argv[1]}', rank=int(sys.argv[2]), world_size=2)\n"
            "print(before.word, Job.this().word, sep='|')\n"
            "group.barrier()\n"
        )
        words = [sys.executable, "-c", script, str(tmp_path / "meet")]
        both = [
            subprocess.Popen([*words, rank], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank in "01"
        ]
        said = [process.communicate(timeout=300) for process in both]
        # some releases of Gloo greet on standard output
        last = [out.splitlines()[-1:] for out, _ in said]
        assert last == [["|torch.distributed of 2"]] * 2, said


class TestJobs:
    """Processes that compute one thing together choose alike."""

    @pytest.fixture(autouse=True)
    def one_of_two(self, gpu, monkeypatch):
        for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "7"}.items():
            monkeypatch.setenv(name, value)

    def test_the_second_takes_what_the_first_found(self, looks, monkeypatch):
        looks.outcome = Outcome(PLAN, {PLAN[0]: NATIVE.verdicts[PLAN[0]]}, {PLAN[1]: "out of memory"})
        first = order()
        begin_anew(monkeypatch)
        looks.outcome = NATIVE
        # the second has memory, and would conclude more
        assert order() == first == ("native", *proof.DEFINITION)
        assert len(looks) == 1
        begin_anew(monkeypatch)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "8")
        assert order() == KERNELS

    def test_a_job_of_another_day_that_was_called_the_same_decides_nothing(self, looks, monkeypatch):
        looks.outcome = Outcome(PLAN, {}, {"": "out of memory"})
        assert order() == proof.DEFINITION
        begin_anew(monkeypatch)
        looks.outcome = NATIVE
        monkeypatch.setattr(proof, "STARTED", proof.STARTED + 3600)
        assert order() == KERNELS

    def test_a_job_that_shares_no_folder_proves_nothing(self, looks, monkeypatch, caplog):
        for name in ("XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        assert order() == proof.DEFINITION
        assert not looks
        assert "geokernels tune" in caplog.text

    def test_nor_one_that_cannot_write_there(self, looks, monkeypatch):
        def full(*given):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(proof_cache, "write", full)
        assert order() == proof.DEFINITION
        assert not looks

    @pytest.mark.parametrize(
        "told",
        [
            {"WORLD_SIZE": "4"},
            {"WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NUM_NODES": "2"},
            {"LOCAL_WORLD_SIZE": "", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"},
        ],
        ids=["torchrun", "Slurm", "both"],
    )
    def test_several_machines_prove_nothing_but_take_what_is_known(self, looks, monkeypatch, told, caplog):
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        assert order() == proof.DEFINITION
        assert not looks
        assert "geokernels tune" in caplog.text
        begin_anew(monkeypatch)
        proof_cache.write(proof._where(0)[1], KEY, Record(PLAN, NATIVE.verdicts))
        assert order() == KERNELS
        assert not looks
