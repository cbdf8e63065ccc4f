"""What one process concluded of a GPU holds for later ones, as far as it was concluded and could be kept."""

import os

import pytest

from geokernels.kernels import proof, proof_cache, proof_runner
from geokernels.kernels.proof_cache import Record
from geokernels.kernels.proof_runner import Outcome

from .proofs import KERNELS, KEY, NATIVE, PLAN, begin_anew, order, verdict


def test_the_answer_is_kept_for_later_processes(gpu, looks, monkeypatch):
    assert order() == KERNELS
    begin_anew(monkeypatch)
    assert order() == KERNELS
    assert len(looks) == 1
    assert proof.holds(PLAN[0]) == NATIVE.verdicts[PLAN[0]]
    assert proof.holds("native nothing") is None


def test_another_key_is_another_answer(gpu, looks, monkeypatch):
    order()
    begin_anew(monkeypatch)
    monkeypatch.setattr(proof_cache, "key_of", lambda device: {**KEY, "library": "abd"})
    order()
    assert len(looks) == 2


def test_it_stays_while_the_process_runs(gpu, looks):
    assert order() == KERNELS
    looks.outcome = Outcome(PLAN, {PLAN[0]: verdict(0.1)}, {})
    for path in (proof_cache.folder()).iterdir():
        path.unlink()
    assert order() == KERNELS
    assert len(looks) == 1


def test_what_was_not_concluded_is_the_definition_and_asked_again_by_the_next(gpu, looks, monkeypatch):
    looks.outcome = Outcome(PLAN, {PLAN[0]: NATIVE.verdicts[PLAN[0]]}, {PLAN[1]: "out of memory"})
    assert order() == ("native", *proof.DEFINITION)
    assert order() == ("native", *proof.DEFINITION)
    assert looks == [()]
    begin_anew(monkeypatch)
    looks.outcome = NATIVE
    assert order() == KERNELS
    # what is known is not proved again
    assert looks == [(), (PLAN[0],)]


@pytest.mark.parametrize("left", [{"": "it did not end within 120 s"}, {"": "busy or unavailable"}])
def test_nothing_concluded_is_nothing_cached(gpu, looks, monkeypatch, left, caplog):
    looks.outcome = Outcome((), {}, left)
    assert order() == proof.DEFINITION
    assert f"could not find out about kernels: {left['']}" in caplog.text
    assert proof.known(0).open == left
    begin_anew(monkeypatch)
    looks.outcome = NATIVE
    assert order() == KERNELS


def test_what_was_concluded_before_it_was_killed_is_kept(gpu, looks, monkeypatch):
    def killed(skip, gpu, keep, **how):
        keep(Outcome(PLAN, {PLAN[0]: NATIVE.verdicts[PLAN[0]]}, {}))
        raise KeyboardInterrupt

    whole = proof_runner.prove
    monkeypatch.setattr(proof_runner, "prove", killed)
    with pytest.raises(KeyboardInterrupt):
        order()
    monkeypatch.setattr(proof_runner, "prove", whole)
    assert order() == KERNELS
    assert looks == [(PLAN[0],)]


def test_a_file_that_is_named_decides(gpu, looks, monkeypatch, tmp_path, caplog):
    record = Record(PLAN, {PLAN[1]: verdict(3.0)})
    proof_cache.write(tmp_path / "given.json", KEY, record)
    monkeypatch.setenv(proof.VARIABLE, str(tmp_path / "given.json"))
    assert order() == ("triton", *proof.DEFINITION)
    for word in ("none.json", "other.json"):
        proof_cache.write(tmp_path / "other.json", {"gpu": "another"}, record)
        begin_anew(monkeypatch)
        monkeypatch.setenv(proof.VARIABLE, str(tmp_path / word))
        assert order() == proof.DEFINITION
        assert f"{word} holds nothing of this GPU" in caplog.text
    assert not looks


def test_no_home(gpu, looks, monkeypatch, caplog):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert order() == KERNELS
    begin_anew(monkeypatch)
    assert order() == KERNELS
    assert len(looks) == 2
    assert caplog.text.count("neither XDG_CACHE_HOME nor HOME is set") == 1


def test_a_folder_that_cannot_be_made(gpu, looks, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert order() == KERNELS
    assert "cannot keep" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_is_read_only(gpu, looks, monkeypatch, tmp_path, caplog):
    (tmp_path / "geokernels").mkdir(mode=0o500)
    assert order() == KERNELS
    assert "cannot keep" in caplog.text


def test_a_read_only_file_system(gpu, looks, monkeypatch, caplog):
    opened = os.open

    def read_only(path, flags, *mode, **how):
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return opened(path, flags, *mode, **how)

    monkeypatch.setattr("os.open", read_only)
    assert order() == KERNELS
    assert "Read-only file system" in caplog.text


def test_a_full_disk(gpu, looks, monkeypatch, caplog):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(proof_cache, "write", full)
    assert order() == KERNELS
    assert "No space left" in caplog.text


def test_a_corrupt_file_is_replaced(gpu, looks, monkeypatch):
    order()
    (path,) = proof_cache.folder().glob("*.json")
    path.write_text(path.read_text()[:40])
    begin_anew(monkeypatch)
    assert order() == KERNELS
    assert len(looks) == 2
    begin_anew(monkeypatch)
    order()
    assert len(looks) == 2
