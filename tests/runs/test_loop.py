"""Every job is run, saved, stopped, refused and continued in one way."""

import json
import os
import signal

import pytest
import torch

from geokernels.runs import loop
from geokernels.runs.folder import RunFolder
from geokernels.runs.held_folder import OWNER
from geokernels.runs.loop import Job, drive


class Counting:
    """A stage that counts to a number; ``at`` is called before each step with its index."""

    terms = ("loss",)

    def __init__(self, steps=5, at=lambda index: None, preparing=lambda: None):
        self.steps, self.index, self.at, self.preparing = steps, 0, at, preparing
        self.prepared = 0

    @property
    def facts(self):
        return {"config": {"steps": self.steps}}

    @property
    def done(self):
        return self.index >= self.steps

    @property
    def history(self):
        return torch.arange(self.index, dtype=torch.float32)[:, None]

    def prepare(self, tell=None):
        self.preparing()
        tell("preparing")
        self.prepared += 1

    def step(self):
        self.at(self.index)
        self.index += 1

    def state_dict(self):
        return {"index": self.index}

    def load_state_dict(self, state):
        self.index = state["index"]


class CountingFolder(RunFolder):
    """Where one is written."""

    command = "demo"
    names = (r"result\.txt", r"good\.txt")


class CountingJob(Job):
    """Two stages, the second of which is made after the first."""

    every = 2

    def __init__(self, folder, *stages, facts=None, preparing=lambda tell: None):
        facts = facts or {"seeds": [0], "picture": "a.png"}
        super().__init__(folder, facts=facts, config={"one": stages[0].facts["config"]})
        self.given, self.preparing, self.kept = stages, preparing, []

    def prepare(self, tell):
        self.preparing(tell)

    def stages(self):
        yield "one", self.given[0]
        assert self.given[0].done
        yield "two", self.given[1]

    def keep(self, name, stage):
        self.kept.append(f"{name} {stage.index}")

    def state_dict(self):
        return {"kept": self.kept}

    def load_state_dict(self, state):
        self.kept = list(state["kept"])

    def last_good(self, name, stage):
        self.folder.file("good.txt").write_text(name)
        return "good.txt is kept"

    def finish(self, record):
        assert not (self.folder.path / "run.json").exists()
        assert record["seconds"]["total"] >= record["seconds"]["one"] >= 0
        self.folder.file("result.txt").write_text(" ".join(self.kept))
        return ["result.txt"]


WHOLE = [*(f"one {i + 1}" for i in range(5)), *(f"two {i + 1}" for i in range(5))]


def run(path, one=None, two=None, *, resume=False, overwrite=False, facts=None, preparing=None, **how):
    with CountingFolder(path).claim(resume=resume, overwrite=overwrite) as folder:
        job = CountingJob(
            folder,
            one or Counting(),
            two or Counting(),
            facts=facts,
            preparing=preparing or (lambda tell: None),
        )
        return drive(job, resume=resume, **how)


def checkpoint(path):
    return CountingFolder(path).load()


def test_a_run_in_one_piece(tmp_path):
    record = run(tmp_path)
    assert (tmp_path / "result.txt").read_text().split() == " ".join(WHOLE).split()
    written = json.loads((tmp_path / "run.json").read_text())
    assert written == record | {"files": written["files"], "options": None, "inputs": []}
    assert list(written["files"]) == ["result.txt"]
    assert (record["schema"], record["steps"]) == (3, {"one": 5, "two": 5})
    assert record["history"]["two"] == [[0.0], [1.0], [2.0], [3.0], [4.0]]
    assert record["seconds"].keys() == {"prepare", "one", "two", "total"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.txt", "run.json"]


class Killed(BaseException):
    """What no handler of ours sees, as SIGKILL is seen by none."""


def die():
    raise Killed


@pytest.mark.parametrize("where", ["job", "stage", *range(10)])
def test_killed_anywhere_it_continues_to_the_same_result(where, tmp_path):
    """While it prepares, before any step, and in the second stage, which the first makes."""
    at = {i: Counting(at=lambda index, i=i: die() if index == i else None) for i in range(5)}
    stages = {"stage": (Counting(preparing=die), None), "job": (None, None)}
    stages |= {i: (at[i], None) for i in range(5)} | {i + 5: (None, at[i]) for i in range(5)}
    with pytest.raises(Killed):
        run(tmp_path, *stages[where], preparing=(lambda tell: die()) if where == "job" else None)
    assert (tmp_path / "checkpoint.pt").exists()
    run(tmp_path, resume=True)
    assert (tmp_path / "result.txt").read_text() == " ".join(WHOLE)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("moment", ["signal", "progress"])
def test_a_run_that_is_asked_to_stop_saves_its_last_step(moment, tmp_path):
    def press(index):
        if index == 2 and moment == "signal":
            signal.raise_signal(signal.SIGTERM)

    def shown(job, name, stage, seconds):
        if stage.index == 3 and moment == "progress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Counting(at=press), on_step=shown, checkpoint_every=100)
    state = checkpoint(tmp_path)
    assert (state["stages"], state["kept"]["kept"]) == ({"one": {"index": 3}}, WHOLE[:3])
    run(tmp_path, resume=True)
    assert (tmp_path / "result.txt").read_text() == " ".join(WHOLE)


def test_checkpoints_are_written_now_and_then_and_after_each_stage(tmp_path):
    seen = []
    run(tmp_path, on_step=lambda job, name, stage, seconds: seen.append(checkpoint(tmp_path)["stages"]))
    reached = [(state.get("one", {}).get("index"), state.get("two", {}).get("index")) for state in seen]
    # what was there when the step was shown: from the beginning, each second step, and the end of a stage
    first = [(None, None), (None, None), (2, None), (2, None), (4, None)]
    assert reached == [*first, (5, None), (5, None), (5, 2), (5, 2), (5, 4)]


def test_slow_steps_are_saved_once_a_minute(tmp_path, monkeypatch):
    """A step of 25 seconds: the third is the first that ends a minute after the last checkpoint."""
    now, seen = [0.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def wait(index):
        now[0] += 25

    def shown(job, name, stage, seconds):
        seen.append(checkpoint(tmp_path)["stages"].get(name, {}).get("index"))

    run(tmp_path, Counting(8, at=wait), Counting(0), on_step=shown, checkpoint_every=100)
    assert seen == [None, None, None, 3, 3, 3, 6, 6]


def test_no_finite_number_leaves_the_last_good_step_and_says_where(tmp_path):
    def spoil(index):
        if index == 3:
            raise FloatingPointError("the loss is nan")

    with pytest.raises(FloatingPointError, match=r"^the loss is nan; good.txt is kept$"):
        run(tmp_path, Counting(at=spoil))
    assert (tmp_path / "good.txt").read_text() == "one"
    assert checkpoint(tmp_path)["stages"] == {"one": {"index": 3}}
    run(tmp_path, resume=True)
    assert (tmp_path / "result.txt").read_text() == " ".join(WHOLE)


def refuse(tell):
    raise ValueError("the clip cannot be read")


def contents(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != OWNER}


def test_refused_input_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        run(tmp_path / "out", preparing=refuse)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("earlier", ["finished", "interrupted"])
def test_an_earlier_run_stays_until_the_new_one_is_prepared(earlier, tmp_path):
    if earlier == "finished":
        run(tmp_path)
    else:
        with pytest.raises(Killed):
            run(tmp_path, Counting(at=lambda index: die()))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        run(tmp_path, preparing=refuse, overwrite=True)
    assert contents(tmp_path) == before
    three = Counting(3, preparing=lambda: None)
    seen = []
    run(tmp_path, three, overwrite=True, on_step=lambda *of: seen.append(sorted(contents(tmp_path))))
    assert seen[0] == ["checkpoint.pt"]
    assert (tmp_path / "result.txt").read_text().startswith("one 1 one 2 one 3 two 1")


def test_stopped_while_it_prepares_a_replacement_can_be_continued(tmp_path):
    run(tmp_path, Counting(3))

    def stop(tell):
        os.kill(os.getpid(), signal.SIGINT)
        tell("reading")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, overwrite=True, preparing=stop)
    assert sorted(contents(tmp_path)) == ["checkpoint.pt"]
    run(tmp_path, resume=True)
    assert (tmp_path / "result.txt").read_text() == " ".join(WHOLE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"facts": {"seeds": [1], "picture": "a.png"}}, r"made with seeds = \[0\], this run has \[1\]"),
        (
            {"facts": {"seeds": [0], "picture": "a.png", "screen": "x"}},
            "made without screen, this run has 'x'",
        ),
        ({"one": Counting(6)}, "made with steps = 5, this run has 6"),
    ],
)
def test_another_run_is_refused_before_anything_is_prepared(change, said, tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, Counting(at=lambda index: die() if index == 3 else None))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=said):
        run(tmp_path, **{"preparing": refuse, **change}, resume=True)
    assert contents(tmp_path) == before
    # a file may have got another name
    run(tmp_path, facts={"seeds": [0], "picture": "renamed.png"}, resume=True)


@pytest.mark.parametrize(("kept_on", "where"), [(None, "cuda:1"), ("cpu", "cpu")])
def test_a_checkpoint_is_read_to_where_it_is_needed(kept_on, where, tmp_path, monkeypatch):
    with pytest.raises(Killed):
        run(tmp_path, Counting(at=lambda index: die()))

    def load(self, device):
        raise ValueError(f"to {device}")

    monkeypatch.setattr(CountingFolder, "load", load)
    monkeypatch.setattr(CountingJob, "kept_on", kept_on)
    with CountingFolder(tmp_path).claim(resume=True, overwrite=False) as folder:
        job = CountingJob(folder, Counting(), Counting())
        job.device = "cuda:1"
        with pytest.raises(ValueError, match=f"to {where}"):
            drive(job, resume=True)


def test_a_stage_that_was_not_begun_keeps_its_state(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, None, Counting(at=lambda index: die() if index == 3 else None))
    with pytest.raises(Killed):
        run(tmp_path, Counting(preparing=die), resume=True)
    assert checkpoint(tmp_path)["stages"]["two"] == {"index": 2}
    run(tmp_path, resume=True)
    assert (tmp_path / "result.txt").read_text() == " ".join(WHOLE)
