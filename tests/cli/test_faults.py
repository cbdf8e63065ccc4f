"""What nobody expected is said to be a fault of ours, in one sentence, and kept in a file."""

import os
import subprocess
import sys
import warnings

import pytest

from geokernels import environment
from geokernels.cli import faults, main


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.fixture
def broken(monkeypatch):
    """A command that raises what it is given."""

    def of(error, *arguments):
        monkeypatch.setattr("geokernels.cli.app", raising(error))
        monkeypatch.setattr(sys, "argv", ["geokernels", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code

    return of


def test_the_traceback_is_kept_in_out(broken, tmp_path, capsys):
    assert broken(KeyError("index"), "morph", "--out", tmp_path) == faults.FAULT
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "this is a bug in geokernels (KeyError: 'index')" in said
    assert "Traceback" not in said
    (kept,) = tmp_path.iterdir()
    assert str(kept) in said
    text = kept.read_text()
    assert "Traceback" in text
    assert "torch" in text
    assert "'morph'" in text
    assert kept.stat().st_mode & 0o077 == 0  # the command's texts are its user's


def test_without_out_it_is_a_temporary_file(broken, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert broken(RuntimeError("a\nb"), "doctor", f"--out={tmp_path / 'none'}") == faults.FAULT
    assert "(RuntimeError: a b)" in capsys.readouterr().err
    assert [path.suffix for path in tmp_path.iterdir()] == [".txt"]


def test_where_nothing_can_be_written_it_is_said(broken, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "fdopen", raising(OSError(28, "No space left on device")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert broken(AttributeError("x"), "doctor") == faults.FAULT
    assert "with what follows" in (said := capsys.readouterr().err)
    assert "AttributeError: x" in said.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_enough_is_no_fault(tmp_path):
    command = [sys.executable, "-m", "geokernels", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert said == ""
    assert process.returncode in (0, 1)


def test_an_interruption_is_no_fault(monkeypatch, capsys):
    monkeypatch.setattr(environment, "facts", raising(KeyboardInterrupt()))
    monkeypatch.setattr(sys, "argv", ["geokernels", "doctor"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert "fault" not in capsys.readouterr().err


def test_an_interruption_before_the_command_is_read(broken, capsys):
    assert broken(KeyboardInterrupt(), "doctor") == 130
    assert capsys.readouterr().err == ""


def test_a_fault_inside_of_a_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(environment, "facts", raising(KeyError("cpu")))
    monkeypatch.setattr(sys, "argv", ["geokernels", "doctor"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == faults.FAULT
    assert "this is a bug in geokernels (KeyError: 'cpu')" in capsys.readouterr().err


def test_warnings_are_lines(monkeypatch, capsys):
    monkeypatch.setattr("geokernels.cli.app", lambda: warnings.warn("it was begun elsewhere", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        main()
    assert capsys.readouterr().err == "Warning: it was begun elsewhere\n"
