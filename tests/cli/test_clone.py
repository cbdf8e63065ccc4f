"""What needs a clone runs there in a process of its own: same terminal, same end, and nothing is imported."""

import ast
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import geokernels
from geokernels.cli import clone

COMMAND = """
import sys
from geokernels.cli import clone
try:
    clone._run(clone.Path({root!r}), "training.script", {options!r}, called="geokernels x", extra="bench")
except clone.Stopped as stopped:
    assert not [name for name in sys.modules if name.startswith("training")]
    sys.exit(stopped.code)
"""


@pytest.fixture
def script(tmp_path):
    """Writes the script of a clone, and gives the command that runs it."""

    def write(text: str, *options: str) -> list[str]:
        (tmp_path / "training").mkdir()
        (tmp_path / "training/__init__.py").touch()
        (tmp_path / "training/script.py").write_text(text)
        return [sys.executable, "-c", COMMAND.format(root=str(tmp_path), options=list(options))]

    return write


def ran(command):
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=heed, timeout=300)


def heed() -> None:
    """Let signals do what they do in a shell, also where whoever runs the tests ignores them."""
    for number in clone.PASSED_ON:
        signal.signal(number, signal.SIG_DFL)


def test_it_sees_what_was_typed_and_its_exit_code_is_passed_on(script):
    done = ran(script("import sys\ndef main():\n    print(sys.argv)\n    sys.exit(3)", "--a", "b c"))
    assert done.stdout == "['geokernels x', '--a', 'b c']\n"
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("def main(): raise ValueError('steps must be 1')", 2, "Error: steps must be 1\n"),
        (
            "import no_such_thing",
            2,
            "Error: this command needs no_such_thing, which is not installed: "
            'pip install "geokernels[bench]"\n',
        ),
        ("def main(): raise KeyboardInterrupt", 130, ""),
        ("import os, signal\ndef main(): os.kill(os.getpid(), signal.SIGKILL)", 137, ""),
    ],
    ids=["bad input", "missing", "interrupted", "killed"],
)
def test_how_it_ends(script, text, code, said):
    done = ran(script(text))
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "")


WAITING = """
import os, sys, time
def main():
    presses = 0
    try:
        print(os.getpid(), flush=True)  # from now on it may be interrupted
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        presses += 1
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        presses += 1
    print(presses, flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("whole_group", [False, True], ids=["kill", "Ctrl-C"])
def test_an_interruption_arrives_once(script, whole_group):
    """What is sent to the command alone is passed on; what the terminal sends to both is not sent again."""
    command = script(WAITING)
    ours, theirs = pty.openpty()

    def take_the_terminal() -> None:
        heed()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=take_the_terminal,
    )  # fmt: skip
    with process:
        assert int(process.stdout.readline()) != process.pid
        if whole_group:
            os.write(ours, b"\x03")
        else:
            process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "1\n"
    os.close(ours), os.close(theirs)
    assert process.returncode == 130


def test_a_request_to_end_is_passed_on(script):
    process = subprocess.Popen(script(WAITING), stdout=subprocess.PIPE, text=True, preexec_fn=heed)
    with process:
        child = int(process.stdout.readline())
        process.terminate()
        assert process.stdout.read() == ""
    assert process.returncode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize("terminal", [True, False])
def test_it_has_the_terminal_of_the_command(script, terminal):
    command = script("import sys\ndef main(): sys.exit(10 + sys.stdout.isatty())")
    ours, theirs = pty.openpty()
    done = subprocess.run(command, stdout=theirs if terminal else subprocess.DEVNULL)
    os.close(ours), os.close(theirs)
    assert done.returncode == 10 + terminal


def test_the_package_imports_neither_benchmarks_nor_training():
    for path in Path(geokernels.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & {"benchmarks", "training"}, path


def test_what_it_names_is_there():
    for script, *_ in (*clone.TRAININGS.values(), *clone.EVALUATIONS.values()):
        assert (clone.ROOT / f"training/{script}.py").is_file()
    assert (clone.ROOT / "benchmarks/run.py").is_file()
