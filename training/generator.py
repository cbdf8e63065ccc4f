"""Train the world's StyleGAN2 from nothing: ``python -m training.generator --out runs/generator``.

There is no adversary: every z stands for a soft scene (``training/generator_scenes.py``), and the network
learns to draw it. The "mapping" stage fits the mapping network and a linear head that reads the scene off w.
The head then defines what w means, so that the synthesis network can be shown any w: those of random z, and
those on straight lines between them, which makes the pictures change evenly along such lines. It grows:
each stage draws at twice the side of the one before. The head is discarded in the end.

Every step draws its own data from (seed, stage, step), so a run resumed from its checkpoint ends in the same
weights, to the bit, as one never interrupted (on the same machine, with the same number of threads).
"""

import argparse
import hashlib
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from geokernels._checks import reason_of
from geokernels._files import replacing, write_json
from geokernels._sealed import load_sealed, save_sealed
from geokernels.models.stylegan2 import Generator, GeneratorConfig

from .generator_scenes import NUISANCES, WIDTH, code_of, draw
from .steps import REMEDY, chance, rate

NAME = "world-generator"
CHECKPOINT = "generator.ckpt"


@dataclass(frozen=True)
class Config:
    """Sizes, steps and rates. The shipped weights were made with the defaults."""

    seed: int = 0
    channels: tuple[int, ...] = (128, 128, 96, 64, 32)
    style_dim: int = 128
    mapping_layers: int = 4
    softness: float = 0.02  # of the choices in z
    codes: int = 1024  # in a batch of the mapping stage
    between: float = 0.35  # share of pictures on lines between two w
    pictures: dict[str, int] = field(default_factory=lambda: {"16": 32, "32": 16, "64": 16})  # in a batch
    steps: dict[str, int] = field(
        default_factory=lambda: {"mapping": 6000, "16": 2000, "32": 1000, "64": 4500}
    )
    rates: dict[str, float] = field(
        default_factory=lambda: {"mapping": 4e-2, "16": 3e-2, "32": 3e-2, "64": 2e-2}
    )
    # steps over which the rate falls to zero; a stage that another follows stops well before
    decay: dict[str, int] = field(
        default_factory=lambda: {"mapping": 6000, "16": 3500, "32": 5000, "64": 4500}
    )
    average: float = 0.998  # of the synthesis network's weights
    save_every: int = 100


QUICK = Config(
    channels=(8, 8, 8, 8, 8),
    style_dim=40,
    mapping_layers=2,
    codes=64,
    pictures={"16": 4, "32": 4, "64": 4},
    steps={"mapping": 5, "16": 2, "32": 2, "64": 3},
    decay={"mapping": 5, "16": 3, "32": 3, "64": 3},
    save_every=2,
)


@dataclass
class State:
    """Everything a checkpoint holds."""

    model: Generator
    head: nn.Linear  # reads the scene off w; discarded in the end
    stage: str = "mapping"
    step: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # of processor time
    optimizer: dict | None = None
    average: dict | None = None  # running average of the synthesis network's parameters

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        kept = {k: v for k, v in vars(self).items() if k not in ("model", "head")}
        kept |= {"model": self.model.state_dict(), "head": self.head.state_dict()}
        save_sealed(path, kept, kind="training generator")

    def load(self, path: Path) -> None:
        """Take up where a checkpoint left off."""
        kept = load_sealed(path, kind="training generator", remedy=REMEDY)
        try:
            self.model.load_state_dict(kept.pop("model"))
            self.head.load_state_dict(kept.pop("head"))
        except (LookupError, RuntimeError) as error:
            raise ValueError(f"{path} is of another training ({reason_of(error)}); {REMEDY}") from error
        vars(self).update(kept)


def mapping_loss(config: Config, state: State, generator: torch.Generator) -> Tensor:
    """How far the scenes read off w are from those that z stands for."""
    z = torch.randn(config.codes, config.style_dim, generator=generator)
    error = (state.head(state.model.mapping(z)) - code_of(z, softness=config.softness)).square()
    # where an object is may be any smooth function of z, but what it is must be clear
    return error[:, :-NUISANCES].sum(1).mean() + 0.05 * error[:, -NUISANCES:].sum(1).mean()


@torch.no_grad()
def sample_w(config: Config, state: State, generator: torch.Generator) -> Tensor:
    """A batch of w: of random z, and from between two such."""
    n = config.pictures[state.stage]
    z = torch.randn(2 * n, config.style_dim, generator=generator)
    first, second = state.model.mapping(z).chunk(2)
    share = torch.rand(n, 1, generator=generator)
    chosen = torch.rand(n, 1, generator=generator) < config.between
    return first.lerp(second, share * chosen)


def picture_loss(drawn: Tensor, wanted: Tensor, inside: Tensor) -> Tensor:
    """Distance of pictures: pixels with the object's counted more, edges, and colours over wider areas."""
    near = F.max_pool2d(inside, 5, 1, 2)
    pixels = (F.smooth_l1_loss(drawn, wanted, beta=0.05, reduction="none") * (1 + 3 * near)).mean()
    error = drawn - wanted
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    wide = sum(F.avg_pool2d(error, k).abs().mean() for k in (2, 4))
    return pixels + edges + 0.5 * wide


def synthesis_loss(config: Config, state: State, generator: torch.Generator) -> Tensor:
    """How far pictures are from renders of the scenes that their w mean."""
    side = int(state.stage)
    w = sample_w(config, state, generator)
    with torch.no_grad():
        wanted, inside = draw(state.head(w), side)
    return picture_loss(state.model.synthesis(w, noise="none", size=side), wanted, inside)


def synthesis_parameters(model: Generator) -> dict[str, nn.Parameter]:
    """What is not the mapping network; noise strengths stay zero."""
    return {
        k: p
        for k, p in model.named_parameters()
        if not k.startswith("style.") and not k.endswith("noise.weight")
    }


def optimizer_of(state: State) -> torch.optim.Adam:
    """Adam over what the stage trains; ``scale`` undoes the mapping network's own learning rate."""
    if state.stage == "mapping":
        groups = [
            {"params": list(state.model.style.parameters()), "scale": 1 / state.model.style[1].rate},
            {"params": list(state.head.parameters()), "scale": 1.0},
        ]
    else:
        groups = [{"params": list(synthesis_parameters(state.model).values()), "scale": 1.0}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    return optimizer


def run_stage(config: Config, state: State, path: Path, progress: Progress) -> None:
    """Train ``state`` from where it stands to the end of its stage, saving to ``path`` on the way."""
    stage, steps = state.stage, config.steps[state.stage]
    loss_of = mapping_loss if stage == "mapping" else synthesis_loss
    optimizer, parameters = optimizer_of(state), synthesis_parameters(state.model)
    if stage != "mapping" and state.average is None:
        state.average = {k: p.detach().clone() for k, p in parameters.items()}
    bar = progress.add_task(stage, total=steps, completed=state.step, loss="")
    started = time.process_time()
    while state.step < steps:
        loss = loss_of(config, state, chance(config.seed, stage, state.step))
        span = config.decay[stage]
        learning_rate = rate(state.step, span, config.rates[stage], warm=max(1, span // 20))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        state.step += 1
        if stage != "mapping":
            decay = min(config.average, (1 + state.step) / (10 + state.step))
            for name, parameter in parameters.items():
                state.average[name].lerp_(parameter.detach(), 1 - decay)
        if state.step % config.save_every == 0 or state.step == steps:
            now = time.process_time()
            state.seconds[stage] = state.seconds.get(stage, 0.0) + now - started
            started = now
            state.optimizer = optimizer.state_dict()
            state.save(path)
        progress.update(bar, completed=state.step, loss=f"{loss.item():.4f}")


def begin(config: Config, path: Path) -> State:
    """The state that training starts from: of the checkpoint at ``path`` if there is one."""
    torch.manual_seed(config.seed)
    model = Generator(GeneratorConfig(config.channels, config.style_dim, config.mapping_layers))
    state = State(model, nn.Linear(config.style_dim, WIDTH))
    if path.exists():
        state.load(path)
    return state


def train(config: Config, out: Path, *, quiet: bool = False) -> Path:
    """Train all stages, or what is left of them, in ``out``; returns the weights file."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / CHECKPOINT
    state = begin(config, path)
    stages = list(config.steps)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[loss]}"), disable=quiet) as progress:
        for stage in stages[stages.index(state.stage) :]:
            if stage != state.stage:
                state.stage, state.step, state.optimizer = stage, 0, None
            run_stage(config, state, path, progress)
    return export(config, state, out)


@torch.no_grad()
def export(config: Config, state: State, folder: Path) -> Path:
    """Write the averaged weights in half precision, with the mean of w, and a record of their making."""
    weights = {**state.model.state_dict(), **(state.average or {})}
    generator = torch.Generator().manual_seed(config.seed)
    weights["latent_avg"] = state.model.mean_latent(2**16, generator=generator)
    path = folder / f"{NAME}.safetensors"
    with replacing(path) as partial:
        save_file({k: v.half().contiguous() for k, v in weights.items()}, partial)
    record = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "config": asdict(config),
        "done": f"{state.step} of {config.steps[state.stage]} steps of stage {state.stage!r}",
        "seconds": {k: round(v) for k, v in state.seconds.items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    write_json(folder / f"{NAME}.record.json", record)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of checkpoint and weights; resumes there"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    parser.add_argument("--export", action="store_true", help="write the weights as they stand, and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = replace(QUICK if arguments.quick else Config(), seed=arguments.seed)
    if not arguments.export:
        print(train(config, arguments.out))
    elif (path := arguments.out / CHECKPOINT).exists():
        print(export(config, begin(config, path), arguments.out))
    else:
        parser.error(f"--out must hold a checkpoint to export, found none at {path}")


if __name__ == "__main__":
    main()
