"""Runs interpolations in a folder: checkpoints, Ctrl-C, the record."""

import time
from collections.abc import Callable, Mapping

from torch import Tensor

from ..pipelines import PromptInterpolation
from ..world import judge
from .demo_models import reading
from .driver import interrupts_between_steps
from .interpolation import InterpolationFolder
from .record import machine, peak_memory_mib, versions


def run_interpolations(
    runs: Mapping[str, PromptInterpolation],
    folder: InterpolationFolder,
    *,
    facts: dict,
    judged: bool,
    resume: bool = False,
    on_batch: Callable[[str, PromptInterpolation, float], None] = lambda name, run, seconds: None,
) -> dict:
    """Run every interpolation to its end in ``folder``, and write everything they leave behind.

    Args:
        runs: One a coupling, by its name, fresh; with ``resume`` they go to where the checkpoint stands.
        folder: Claimed already.
        facts: What ``run.json`` says besides: prompts, seeds, model, distance.
        judged: Whether the pictures are of the rendered world, which the judge can read.
        resume: Whether to continue from the folder's checkpoint.
        on_batch: Called after each batch with the coupling and the seconds so far; a KeyboardInterrupt leaves
            a checkpoint.

    Returns:
        The record, as in ``run.json`` without the checksums.

    Raises:
        ValueError: If the checkpoint is of another run.
    """
    seconds = 0.0
    if resume:
        state = folder.load("cpu")
        with folder.continuing(state, facts):
            if set(state["runs"]) != set(runs):
                raise ValueError(
                    f"the checkpoint was made with coupling {', '.join(state['runs'])}, "
                    f"this run has {', '.join(runs)}"
                )
            seconds = float(state["seconds"])
            for name, run in runs.items():
                run.load_state_dict(state["runs"][name])
    with interrupts_between_steps() as check:
        for name, run in runs.items():
            while not run.done:
                start = time.perf_counter()
                run.step()
                seconds += time.perf_counter() - start
                states = {name: run.state_dict() for name, run in runs.items()}
                folder.save({"runs": states, "seconds": seconds}, facts)
                on_batch(name, run, seconds)
                check()
    record = _record(runs, facts, seconds)
    frames = {name: run.frames for name, run in runs.items()}
    folder.finish(record, frames, {name: _labels(runs[name], frames[name], judged) for name in runs})
    return record


def _record(runs: Mapping[str, PromptInterpolation], facts: dict, seconds: float) -> dict:
    first = next(iter(runs.values()))
    paths = {}
    for name, run in runs.items():
        distances, score = run.distances(), run.score()
        paths[name] = {
            "times": [round(t, 9) for t in run.times.tolist()],
            "distances": None if distances is None else [round(d, 6) for d in distances.tolist()],
            "score": score and score._asdict(),
            "rounds": run.round,
        }
    config = {key: value for key, value in first.state_dict()["run"]["config"].items() if key != "coupling"}
    device = str(first.model.device)
    return {
        "command": "interpolate",
        **facts,
        "config": {"coupling": list(runs), **config},
        "invariance": {key: float(f"{value:.3g}") for key, value in first.invariance._asdict().items()},
        "paths": paths,
        "seconds": round(seconds, 3),
        "peak_memory_mib": peak_memory_mib(device),
        "machine": machine(device),
        "versions": versions(),
    }


def _labels(run: PromptInterpolation, frames: Tensor, judged: bool) -> list[str]:
    if judged:
        return [reading(seen) for seen in judge(frames).names()]
    return [f"t = {t:.3f}" for t in run.times.tolist()]
