"""What trainings of several stages share: seeded chance, a learning rate, checkpoints, a progress bar."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from geokernels._checks import reason_of
from geokernels._sealed import load_sealed, save_sealed

REMEDY = "remove it to begin again"


def chance(seed: int, stage: str, step: int) -> torch.Generator:
    """The source of all randomness of one step."""
    key = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


def rate(step: int, steps: int, peak: float, *, warm: int, hold: int = 0) -> float:
    """Learning rate: linear over ``warm`` steps, at its peak for ``hold``, then a cosine to zero."""
    if step < warm:
        return peak * (step + 1) / warm
    if step < warm + hold:
        return peak
    begin = warm + hold
    return peak * 0.5 * (1 + math.cos(math.pi * (step - begin) / max(1, steps - begin)))


class Stage:
    """Some modules in training: their optimiser, running average and progress, in one resumable file.

    Args:
        name: Names the file, the bar and the randomness.
        modules: What is kept in the file; parameters that require a gradient are trained.
        folder: Of the file; training is taken up where it finds one.
        decay: Of the weights; gains and biases are not decayed.
        average: Share that the running average keeps at each step; 0 for none.
        settle: Let the young average forget faster, for weights that begin at random.
        betas: AdamW's.

    Attributes:
        step: Steps taken.
        seconds: Time spent in them.
        average: Running average of the weights, or None.
    """

    def __init__(
        self,
        name: str,
        modules: dict[str, nn.Module],
        folder: Path,
        *,
        decay: float,
        average: float = 0.0,
        settle: bool = True,
        betas: tuple[float, float] = (0.9, 0.99),
    ):
        self.name, self.modules, self.folder = name, modules, folder
        self.path = folder / f"{name}.ckpt"
        self.step, self.seconds, self.keep, self.settle = 0, 0.0, average, settle
        parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=betas)
        self.average = {k: m.state_dict() for k, m in modules.items()} if average else None
        if average:
            self.average = {k: {n: v.clone() for n, v in s.items()} for k, s in self.average.items()}
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()

    def run(
        self,
        steps: int,
        loss: Callable[[torch.Generator], dict[str, Tensor]],
        *,
        rate: Callable[[int], float],
        seed: int,
        save_every: int,
        quiet: bool = False,
        watch: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Step to ``steps``, saving every ``save_every``; ``watch``'s figures go to a log at each save."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, TextColumn("{task.fields[loss]}"), disable=quiet) as progress:
            bar = progress.add_task(self.name, total=steps, completed=self.step, loss="")
            started = time.perf_counter()
            while self.step < steps:
                terms = loss(chance(seed, self.name, self.step))
                self._update(sum(terms.values()), rate(self.step))
                self.step += 1
                shown = {k: v.item() for k, v in terms.items()}
                progress.update(
                    bar, completed=self.step, loss=" ".join(f"{k} {v:.4f}" for k, v in shown.items())
                )
                if self.step % save_every == 0 or self.step == steps:
                    self.seconds += time.perf_counter() - started
                    self._save()
                    self._log(shown | (watch() if watch else {}))
                    started = time.perf_counter()

    def averaged(self) -> None:
        """Put the running average in the place of the weights: the stage is over."""
        for name, module in self.modules.items():
            module.load_state_dict(self.average[name])

    def _update(self, loss: Tensor, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        if self.keep:
            # or the first random weights would stay for long
            young = (self.step + 1) / (self.step + 10) if self.settle else 1.0
            share = 1 - min(self.keep, young)
            for name, module in self.modules.items():
                for key, value in module.state_dict().items():
                    if value.is_floating_point():
                        self.average[name][key].lerp_(value, share)

    def _save(self) -> None:
        kept = {
            "step": self.step,
            "seconds": self.seconds,
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
        }
        save_sealed(self.path, kept, kind=f"training {self.name}")

    def _load(self) -> None:
        kept = load_sealed(self.path, kind=f"training {self.name}", remedy=REMEDY)
        try:
            for name, module in self.modules.items():
                module.load_state_dict(kept["modules"][name])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.step, self.seconds, self.average = kept["step"], kept["seconds"], kept["average"]
        except (LookupError, TypeError, RuntimeError) as error:
            raise ValueError(f"{self.path} is of another training ({reason_of(error)}); {REMEDY}") from error

    def _log(self, figures: dict[str, float]) -> None:
        line = {"step": self.step, "seconds": round(self.seconds)} | {
            k: round(v, 5) for k, v in figures.items()
        }
        with (self.folder / f"{self.name}.log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def facts_of(stage: Stage, batch: int, config) -> dict:
    """How a stage's weights were made."""
    return {"steps": stage.step, "batch": batch, "seconds": round(stage.seconds), "config": asdict(config)}
