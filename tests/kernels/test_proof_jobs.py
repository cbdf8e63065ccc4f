"""Processes that compute one thing together choose the same kernels."""

import pytest

from geokernels.kernels import proof, proof_cache
from geokernels.kernels.proof_cache import Record
from geokernels.kernels.proof_runner import Outcome

from .proofs import KERNELS, KEY, NATIVE, PLAN, begin_anew, order


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
