"""geokernels batch runs every job once, whatever ends in between, and says first what cannot run."""

import csv
import json
import os
import platform
import re
import shlex
import signal
import sys
import textwrap
import time
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli import batch as command
from geokernels.cli.batch import SOME_FAILED
from geokernels.cli.console import BAD_INPUT, INTERRUPTED
from geokernels.runs import batch as runs
from geokernels.runs.held_folder import HeldFolder
from geokernels.runs.record import require_record
from geokernels.runs.worker import CRASHED, Worker

# stands for the process that runs jobs: what it does with one is said by the job's KIND
STUB = """
    import json, os, signal, sys
    from pathlib import Path

    def answer(code=0, reason="", ends=False):
        print(json.dumps({"code": code, "reason": reason, "ends": ends}), flush=True)

    def stop(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    for request in sys.stdin:
        words = json.loads(request)["words"]
        if words == ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        (out,) = [Path(word[6:]) for word in words if word.startswith("--out=")]
        out.mkdir(parents=True, exist_ok=True)
        with (out / "typed.txt").open("a") as file:
            print(*words[words.index(f"--out={out}") + 1:], file=file)
        kind = next(word for word in words[3:] if not word.startswith("--"))
        begun = (out / "samples.partial.json").exists()
        (out / "samples.partial.json").write_text("")
        if kind == "killed" and not begun:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "wrong":
            answer(2, "KIND must be right, got 'wrong'")
            continue
        if kind == "damaged" and "--overwrite" not in words:
            answer(2, "it is damaged; start again with --overwrite")
            continue
        if kind == "fault":
            answer(70, "this is a bug", True)
            break
        if kind == "endless" and not begun:
            try:
                os.kill(os.getppid(), signal.SIGINT)
                signal.pause()
            except KeyboardInterrupt:
                answer(130, "Stopped after step 1", True)
                break
        (out / "samples.partial.json").unlink()
        (out / "report.html").write_text("")
        (out / "run.json").write_text('{"command": "world sample", "files": {}}')
        answer()
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    (tmp_path / "stub.py").write_text(textwrap.dedent(STUB))
    made = []

    def worker():
        made.append(Worker([sys.executable, str(tmp_path / "stub.py")], os.environ))
        return made[-1]

    monkeypatch.setattr(command, "begin_worker", worker)
    yield worker
    assert all(one.process is None for one in made)  # every process was let go


@pytest.fixture
def jobs(tmp_path):
    """A file of jobs that are called as what they do."""

    def write(*kinds):
        path = tmp_path / "jobs.csv"
        path.write_text("name,command,KIND\n" + "".join(f"{kind},world sample,{kind}\n" for kind in kinds))
        return path

    return write


def run(*arguments):
    return CliRunner().invoke(app, ["batch", *(str(word) for word in arguments)])


def refused(*arguments):
    found = run(*arguments)
    assert found.exit_code == BAD_INPUT, found.output
    (line,) = found.stderr.strip().splitlines()
    return line.removeprefix("Error: ")


def record_of(out):
    record = json.loads((out / "run.json").read_text())
    require_record(record)
    return record


def ended(out):
    return {job["name"]: (job["state"], job["attempts"], job["reason"]) for job in record_of(out)["jobs"]}


def typed(out, name):
    """What was typed besides the folder, attempt by attempt."""
    return (out / "jobs" / name / "typed.txt").read_text().splitlines()


def test_every_job_has_its_folder_and_its_end(stub, jobs, tmp_path):
    out = tmp_path / "out"
    found = run(jobs("a", "wrong", "killed", "fault", "b"), "--out", out)
    assert found.exit_code == SOME_FAILED
    assert ended(out) == {
        "a": ("finished", 1, ""),
        "wrong": ("failed", 1, "KIND must be right, got 'wrong'"),
        "killed": ("failed", 1, "its process was killed by SIGKILL, as when memory runs out"),
        "fault": ("failed", 1, "this is a bug"),
        "b": ("finished", 1, ""),
    }
    assert "2 of 5 jobs are finished" in found.stdout
    assert "Failed: wrong: KIND must be right, got 'wrong'" in found.stderr
    with (out / "jobs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["command"] for line in lines[:2]] == ["world sample -- a", "world sample -- wrong"]
    assert set(record_of(out)["files"]) == {"batch.jsonl", "batch.json", "jobs.csv", "report.html"}


def test_the_same_call_again_does_what_is_left(stub, jobs, tmp_path):
    out = tmp_path / "out"
    assert run(jobs("a", "wrong", "killed", "damaged"), "--out", out).exit_code == SOME_FAILED
    # nothing: failures are tried again as often as asked, which was never
    assert run(jobs("a", "wrong", "killed", "damaged"), "--out", out).exit_code == SOME_FAILED
    assert [len(typed(out, name)) for name in ("a", "wrong", "killed", "damaged")] == [1, 1, 1, 1]
    found = run(jobs("a", "wrong", "killed", "damaged", "new"), "--out", out, "--retries", 2)
    assert found.exit_code == SOME_FAILED
    assert typed(out, "a") == ["-- a"]
    assert typed(out, "wrong") == ["-- wrong", *["--resume -- wrong"] * 2]
    assert typed(out, "killed") == ["-- killed", "--resume -- killed"]
    assert typed(out, "damaged") == ["-- damaged", "--overwrite -- damaged"]
    assert ended(out)["wrong"][:2] == ("failed", 3)
    assert {name for name, (state, *_) in ended(out).items() if state == "finished"} == {
        *("a", "killed", "damaged", "new")
    }
    (out / "jobs" / "wrong" / "run.json").write_text('{"command": "world sample", "files": {}}')  # by hand
    assert run(jobs("a", "wrong", "killed", "damaged", "new"), "--out", out).exit_code == 0


def test_interrupted_it_leaves_what_is_done_and_goes_on(stub, jobs, tmp_path):
    out = tmp_path / "out"
    found = run(jobs("a", "endless", "b"), "--out", out)
    assert found.exit_code == INTERRUPTED, found.output
    assert f"Stopped after 1 of 3 jobs; the same command continues in {out}." in found.stderr
    assert not (out / "jobs" / "b").exists()
    assert run(jobs("a", "endless", "b"), "--out", out).exit_code == 0
    assert typed(out, "endless") == ["-- endless", "--resume -- endless"]
    assert typed(out, "a") == ["-- a"]
    assert ended(out)["endless"] == ("finished", 1, "")  # to be stopped is no failure


def test_killed_it_goes_on(stub, jobs, tmp_path, monkeypatch):
    out, step = tmp_path / "out", runs.Jobs.step

    def killed(self):
        if self.index == 2:
            raise SystemExit(9)
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Jobs, "step", killed)
        assert run(jobs("a", "wrong", "b"), "--out", out).exit_code == 9
    lines = (out / "batch.jsonl").read_text()
    (out / "batch.jsonl").write_text(lines + lines[:50])  # which was written when it happened
    assert run(jobs("a", "wrong", "b"), "--out", out).exit_code == SOME_FAILED
    assert [len(typed(out, name)) for name in ("a", "wrong", "b")] == [1, 1, 1]
    assert ended(out)["wrong"][0] == "failed"


def test_damaged_lines_are_said(stub, jobs, tmp_path):
    out = tmp_path / "out"
    run(jobs("a", "b"), "--out", out)
    text = (out / "batch.jsonl").read_text()
    (out / "batch.jsonl").write_text(text.replace('"attempts": 1', '"attempts": 0', 1))
    assert "line 1 of" in refused(jobs("a", "b"), "--out", out)
    (out / "batch.jsonl").write_text(text)
    (out / "jobs" / "a" / "run.json").write_text('{"comm')  # a job's own is the job's to complain of
    assert run(jobs("a", "b"), "--out", out).exit_code == 0
    assert typed(out, "a") == ["-- a"] * 2


def test_a_job_that_nobody_saw_end_is_counted(stub, jobs, tmp_path):
    out = tmp_path / "out"
    (out / "jobs" / "a" / "shard-1-of-2").mkdir(parents=True)  # a job may be a part of a run
    (out / "jobs" / "a" / "shard-1-of-2" / "run.json").write_text('{"command": "eval", "files": {}}')
    (out / "jobs" / "a" / "shard-1-of-2" / "report.html").write_text("")
    assert run(jobs("a", "b"), "--out", out).exit_code == 0
    assert ended(out) == {"a": ("finished", 1, ""), "b": ("finished", 1, "")}
    assert not (out / "jobs" / "a" / "typed.txt").exists()
    lines = [json.loads(line)["name"] for line in (out / "batch.jsonl").read_text().splitlines()]
    assert lines == ["a", "b"]
    assert "jobs/a/shard-1-of-2/report.html" in Links((out / "report.html").read_text()).to


def test_a_job_waits_for_who_still_writes_to_its_folder(stub, jobs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    held = HeldFolder(out / "jobs" / "a").hold()
    end, ends = runs.Jobs._end, []

    def free(self, task, outcome):
        end(self, task, outcome)
        ends.append(task.name)
        held.release()

    monkeypatch.setattr(runs.Jobs, "_end", free)
    with pytest.warns(UserWarning, match="jobs/a is still written to, job a waits for that to end"):
        assert run(jobs("a", "b"), "--out", out).exit_code == 0
    assert ends == ["b", "a"]
    lines = [json.loads(line)["name"] for line in (out / "batch.jsonl").read_text().splitlines()]
    assert lines == ["a", "b"]  # as jobs are in the file


def test_a_drive_without_locks_leaves_open_whether_another_machine_writes(tmp_path, monkeypatch):
    def none(file, how):
        raise OSError("no locks here")

    folder = HeldFolder(tmp_path)
    monkeypatch.setattr("geokernels.runs.held_folder.fcntl.flock", none)
    assert not folder.is_in_use()
    (tmp_path / ".geokernels-run").write_text("process 1 on elsewhere")
    assert folder.is_in_use()
    (tmp_path / ".geokernels-run").write_text(f"process {2**22 + 1} on {platform.node()}")  # no such process
    assert not folder.is_in_use()
    assert not HeldFolder(tmp_path / "none").is_in_use()


def test_two_at_once_are_refused(stub, jobs, tmp_path):
    out = tmp_path / "out"
    with runs.BatchFolder(out).claim(resume=False, overwrite=False):
        said = refused(jobs("a"), "--out", out)
    assert said.startswith("--out must not be in use, another run (process ")
    assert run(jobs("a"), "--out", out).exit_code == 0


def test_a_job_stays_the_one_it_was(stub, jobs, tmp_path):
    out, path = tmp_path / "out", jobs("a", "b")
    assert run(path, "--out", out).exit_code == 0
    before = (out / "run.json").read_text()
    path.write_text(path.read_text().replace("b,world sample,b", "b,world sample,c"))
    said = refused(path, "--out", out)
    assert said.startswith("job b must be the one it was, world sample -- b, got world sample -- c: give it")
    assert (out / "run.json").read_text() == before


def test_parts_are_merged_to_the_whole(stub, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    monkeypatch.setattr("geokernels.runs.worker.time.monotonic", lambda: 0.0)
    monkeypatch.setattr("geokernels.runs.record.peak_memory_mib", lambda device: 1.0)
    path = jobs("a", "wrong", "b", "killed", "c")
    assert run(path, "--out", tmp_path / "whole", "--retries", 1).exit_code == SOME_FAILED
    for part in ("1/2", "0/2"):
        run(path, "--out", tmp_path / "parts", "--retries", 1, "--shard", part)
    names = [job["name"] for job in record_of(tmp_path / "parts" / "shard-1-of-2")["jobs"]]
    assert names == ["wrong", "killed"]
    words = ["merge", tmp_path / "parts", "--out", tmp_path / "merged"]
    found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == 0, found.output

    def contents(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    ours, theirs = contents(tmp_path / "merged"), contents(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    again = CliRunner().invoke(app, [str(word) for word in words])
    assert again.exit_code == BAD_INPUT


def test_a_batch_is_repeated_and_a_part_of_it_too(stub, jobs, tmp_path, monkeypatch):
    path, out = jobs("a", "b", "c"), tmp_path / "out"
    assert run(path, "--out", out).exit_code == 0
    assert run(path, "--out", tmp_path / "parts", "--shard", "1/2").exit_code == 0
    monkeypatch.setenv("RANK", "0"), monkeypatch.setenv("WORLD_SIZE", "3")  # which a rerun does not follow
    for given, made, names in (
        (out, tmp_path / "out-rerun", "abc"),
        (tmp_path / "parts" / "shard-1-of-2", tmp_path / "again" / "shard-1-of-2", "b"),
    ):
        words = ["rerun", given, *(["--out", tmp_path / "again"] if names == "b" else [])]
        found = CliRunner().invoke(app, [str(word) for word in words])
        assert found.exit_code == 0, found.output
        assert [*ended(made)] == [*names]
    found = CliRunner().invoke(app, ["rerun", str(out), "--resume"])
    assert "--resume goes with commands that have it, batch has none" in found.stderr


class Links(HTMLParser):
    def __init__(self, document):
        super().__init__()
        self.to, self.said = [], []
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        self.to += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.said.append(data)


def test_the_page_links_every_run(stub, tmp_path):
    evil = "<b>a & \"b'</b>"
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    jobs.write_text("".join(json.dumps({"a": kind, "b": evil}) + "\n" for kind in ("scenes", "wrong")))
    run(jobs, "--out", out, "--template", "world sample {a} --prompt {b}")
    document = (out / "report.html").read_text()
    page = Links(document)
    assert "jobs/0001/report.html" in page.to
    assert all((out / link).is_file() for link in page.to)
    assert evil not in document
    said = "".join(page.said)
    assert shlex.join(["world", "sample", "scenes", "--prompt", evil]) in said
    assert "2 jobs: 1 finished, 1 failed" in said
    assert "KIND must be right" in said


# what is said of a file of jobs that cannot be run; PICTURE is one that is there
REFUSED = [
    ("a.txt", "", (), "JOBS must be a file in JSONL"),
    ("a.jsonl", "\n", (), "JOBS must hold a job"),
    ("a.jsonl", '{"command": "doctor"}', (), "line 1 of a.jsonl: command must be one of .*, got 'doctor'"),
    ("a.jsonl", '{"command": "world"}', (), "command must be one of .*world sample.*, got 'world'"),
    ("a.jsonl", '{"command": "batch", "JOBS": "a"}', (), "command must be one of .*, got 'batch'"),
    ("a.jsonl", '\n{"KIND": "scenes"}', (), "line 2 of a.jsonl has no column 'command', it has KIND"),
    ("a.jsonl", '{"command": "world sample"\n', (), "line 1 of a.jsonl must be a JSON object"),
    ("a.jsonl", "[1]", (), r"line 1 of a.jsonl must be a JSON object, got \[1\]"),
    ("a.jsonl", '{"command": "world sample", "KIND": "a", "cuont": 1}', (), "cuont is no option of world"),
    ("a.jsonl", '{"command": "world sample"}', (), "line 1 of a.jsonl: Missing argument"),
    (
        "a.jsonl",
        '{"command": "world sample", "KIND": "a", "count": 0}',
        (),
        "line 1 of a.jsonl: Invalid value for '--count'",
    ),
    ("a.jsonl", '{"command": "world sample", "KIND": {"a": 1}}', (), "KIND must be a text or a number, got"),
    ("a.jsonl", '{"command": "world sample", "KIND": "a", "out": "b"}', (), "must not have --out"),
    ("a.jsonl", '{"command": "world sample", "KIND": "a", "resume": true}', (), "must not have --resume"),
    ("a.jsonl", '{"command": "world sample", "KIND": "a", "resume": "maybe"}', (), "resume must be true or"),
    (
        "a.jsonl",
        '{"command": "morph", "picture": "none.png", "from": "a", "to": "b"}',
        (),
        "line 1 of a.jsonl: PICTURE must be an existing file, found none at none.png",
    ),
    ("a.csv", "command,KIND\nworld sample,a,b\n", (), "line 2 of a.csv must have a value for each of 2"),
    ("a.csv", "command,command\n", (), "must name every column once, it has command twice"),
    ("a.csv", "a\nscenes\n", ("world sample {b}",), "line 2 of a.csv has no column 'b', it has a"),
    ("a.csv", "a\nscenes\n", ("world sample {a.real}",), "--template must have names of columns alone"),
    ("a.csv", "a\nscenes\n", ("world sample {a",), "--template must be words with columns in braces"),
    ("a.csv", "a\nscenes\n", ("world sample 'a",), "--template must be words with columns in braces"),
    ("a.csv", "a\nscenes\n", ("  ",), "--template must"),
    ("a.csv", "a\nscenes\n", ("doctor {a}",), "line 2 of a.csv: --template must be one of .*, got 'doctor'"),
    ("a.csv", "a\n--overwrite\n", ("world sample {a}",), "a must not begin with a dash, .*got '--overwrite'"),
    ("a.csv", "a\nscenes\n", ("world sample {a} --overwrite",), "must not have --overwrite"),
    ("a.csv", "a\nscenes\n", ("world sample {a} --help",), "line 2 of a.csv must be a run"),
    ("a.csv", "a,name\nb,x\nc,X\n", ("world sample {a}",), "line 3 .* name of its own, X is that of line 2"),
    ("a.csv", "a,name\nb,../x\n", ("world sample {a}",), r"name names a folder, .*got '\.\./x'"),
]


@pytest.mark.parametrize("name, text, template, said", REFUSED)
def test_what_cannot_run_is_said_before_anything_runs(name, text, template, said, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "begin_worker", lambda: pytest.fail("a job was run"))
    path, out = tmp_path / name, tmp_path / "out"
    path.write_text(text)
    line = refused(path, "--out", out, *(("--template", *template) if template else ()))
    assert re.search(said, line), line
    assert not out.exists()


def test_jobs_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n\xff\n")
    assert "JOBS must be text in UTF-8" in refused(path, "--out", tmp_path / "out")
    path.write_text("a\nscenes\n")
    said = refused(path, "--out", tmp_path / "out", "--template", "world sample {a}", "--name", "b")
    assert said == "--name must be a column, line 2 of a.csv has a, got 'b'"


def test_a_value_is_one_word_whatever_stands_in_it(tmp_path):
    from geokernels.cli.jobs import read_jobs

    values = ["a b", "$(rm -rf /); 'x' \"y\"", "{b} --out=/ ", "-5", "--out", "ä\nb"]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "n"], *([value, i] for i, value in enumerate(values))])
    template = "world sample 'scenes' --prompt {text} --prompt=x{text}-{n} --seed {n}"
    found = read_jobs(path, template, None)
    assert [task.words for task in found] == [
        ("scenes", "--prompt", value, f"--prompt=x{value}-{i}", "--seed", str(i))
        for i, value in enumerate(values)
    ]
    assert [task.name for task in found] == ["0002", "0003", "0004", "0005", "0006", "0007"]
    assert read_jobs(path, "world sample {{x}} --seed {n}", None)[0].words == ("{x}", "--seed", "0")


def test_columns_are_options_of_any_kind(tmp_path):
    from geokernels.cli.jobs import read_jobs

    (tmp_path / "p.png").write_text("")
    line = {"command": "morph", "PICTURE": str(tmp_path / "p.png"), "--from": "a", "to": "b", "name": "one"}
    line |= {"start": False, "steps": 3, "sets": None, "set": ["views=2", "steps=4"], "most_megapixels": 1.5}
    path = tmp_path / "a.jsonl"
    del line["sets"]
    path.write_text(json.dumps(line))
    (task,) = read_jobs(path, None, None)
    assert task.name == "one"
    assert task.typed == [
        *("morph", "--from=a", "--to=b", "--no-start", "--steps=3", "--set=views=2", "--set=steps=4"),
        *("--most-megapixels=1.5", "--", str(tmp_path / "p.png")),
    ]


class TestWorkers:
    def test_a_crash_is_one_jobs(self, stub, tmp_path):
        worker = stub()
        found = worker.run(["die"], tmp_path / "log", lambda: None)
        assert (found.code, found.reason[:36]) == (CRASHED, "its process was killed by SIGKILL, a")
        words = ["world", "sample", f"--out={tmp_path / 'out'}", "a"]
        assert worker.run(words, tmp_path / "log", lambda: None).code == 0
        worker.process.kill()  # between two jobs
        worker.process.wait()
        assert worker.run(words, tmp_path / "log", lambda: None).code == 0
        worker.close()

    def test_a_second_signal_ends_it_at_once(self, stub, tmp_path):
        worker = stub()

        def first():
            os.kill(worker.process.pid, signal.SIGSTOP)  # it does not answer
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            raise KeyboardInterrupt

        def second(number, frame):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, second)
        try:
            with pytest.raises(KeyboardInterrupt):
                worker.run(["world", "sample", f"--out={tmp_path}", "endless"], tmp_path / "log", first)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert worker.process is None


def test_models_are_loaded_once_and_results_are_those_of_a_process_each(pipeline_folder, tmp_path):
    """Two kinds of jobs that share a pipeline; a third that fails and after which it is loaded again."""
    drawn = ("--model", pipeline_folder, "--steps", 3, "--seed")
    plain = {
        "interpolate": ("interpolate", *drawn, 1, "--prompt", "a", "--prompt", "b", "--frames", 2),
        "edit": ("edit", *drawn, 2, "--from", "a", "--to", "b"),
    }
    plain["interpolate"] += ("--distance", "features")
    lines = {"first": plain["edit"], **plain, "wrong": ("world", "sample", "nothing"), "last": plain["edit"]}
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    jobs.write_text("".join(json.dumps(_as_columns(name, words)) + "\n" for name, words in lines.items()))
    found = run(jobs, "--out", out)
    assert found.exit_code == SOME_FAILED, found.output
    assert {name: state for name, (state, *_) in ended(out).items()} == {
        name: "failed" if name == "wrong" else "finished" for name in lines
    }
    assert ended(out)["wrong"][2].startswith("KIND must be one of ")
    for name, words in plain.items():
        alone = tmp_path / name
        assert CliRunner().invoke(app, [*map(str, words), "--out", str(alone)]).exit_code == 0
        for job in (name, *(("first", "last") if name == "edit" else ())):
            pictures = {p.name: p.read_bytes() for p in (out / "jobs" / job).rglob("*.png")}
            assert pictures == {p.name: p.read_bytes() for p in alone.rglob("*.png")} != {}
    assert "Report: " in (out / "logs" / "edit.txt").read_text()


def _as_columns(name, words):
    line = {"name": name, "command": words[0] if words[0] != "world" else "world sample"}
    if words[0] == "world":
        return {**line, "KIND": words[2]}
    for option, value in zip(words[1::2], words[2::2]):
        text = value if isinstance(value, int | float) else str(value)
        line[option] = [line[option], text] if option in line else text
    return line


def test_a_worker_whose_batch_was_killed_stops_its_job(tmp_path):
    worker = command.begin_worker()
    out, log = tmp_path / "out", tmp_path / "log"
    words = ["world", "sample", "scenes", "--count", "100000", "--out", str(out)]
    process = worker._started()
    process.stdin.write(json.dumps({"words": words, "log": str(log)}) + "\n")
    process.stdin.flush()
    until = time.monotonic() + 120
    while not (out / "pictures" / "0001.png").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.stdin.close()  # as the end of the process that holds it does
    process.wait(120)
    process.stdout.close()
    assert (out / "samples.partial.json").exists()
    assert "Stopped after " in log.read_text()


def test_models_are_kept_as_long_as_jobs_use_them(tmp_path):
    from geokernels.cli.kept import keeping, kept

    loaded = []

    def load(name, *, device):
        loaded.append(name)
        return object()

    file = tmp_path / "weights"
    file.write_text("1")
    assert kept(load, file, device="cpu") is not kept(load, file, device="cpu")
    del loaded[:]
    with keeping() as models:
        first = kept(load, file, device="cpu")
        assert kept(load, file, device="cpu") is first
        assert kept(load, file, device="cuda") is not first
        models.next()
        assert kept(load, file, device="cpu") is first
        file.write_text("12")  # another file by the same name
        assert kept(load, file, device="cpu") is not first
        models.next()
        models.next()  # a job that used none
        kept(load, file, device="cpu")
        assert len(loaded) == 4
        models.clear()
        kept(load, file, device="cpu")
        assert len(loaded) == 5
