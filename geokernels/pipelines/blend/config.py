"""Settings of a blend."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..._checks import require_choice, require_number, require_positive, require_share
from ..edit.flow_solvers import SOLVERS
from ..recipe import RecipeConfig
from .maps import MatchingConfig

COLOURS = ("moved", "faded")


@dataclass(frozen=True, kw_only=True)
class BlendConfig(RecipeConfig):
    """How two pictures are matched, and how one becomes the other. Both recipes are one.

    Attributes:
        frames: Pictures of the film, both given ones included.
        grid: Points on the longest side of the grid on which the motion is fitted.
        doubt: Confidence at which a place follows its surroundings as much as its own match.
        least_area: Share of its area below which no part of a picture shrinks on the way; above 0, so that
            nothing is folded over.
        fixed_reach: How far around a pair that the user fixed the motion follows it, as a share of the
            frame's longest side.
        colours: Of what has no partner: ``"moved"`` from one palette to the other by transport, or
            ``"faded"``.
        palette: Colours of each picture that are transported.
        colour_eps: Regularisation of that transport, in squared distances of colours in [0, 1].
        haste: How much faster than the rest what has no partner changes over, which halves the time for
            which both are seen where it is 1; 0 for as fast.
        least_trust: Weight, in the mixture, of what has no partner, where what has one has 1.
        matching: How the pictures are matched.
        level: Share of the steps from noise to pictures that a diffusion model takes for each frame, above 0
            and at most 1: the more, the less is left of what the pictures have in places.
        steps: From noise to pictures, of which the model takes ``level``.
        guidance_scale: Of classifier-free guidance by the texts; 1 is none.
        solver: How a rectified flow is inverted and followed, see
            :func:`geokernels.pipelines.flow_inversion`; None for ``"midpoint"``.
        longest: About how many pixels the longer side of a drawn frame has; None for the model's own. What is
            drawn is then brought to the size of the frames.
        batch: Frames drawn at once.
    """

    frames: int = 17
    grid: int = 192
    doubt: float = 0.3
    least_area: float = 0.1
    fixed_reach: float = 0.1
    colours: str = "moved"
    palette: int = 512
    colour_eps: float = 0.005
    haste: float = 0.5
    least_trust: float = 0.25
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    level: float = 0.5
    steps: int = 30
    guidance_scale: float = 1.0
    solver: str | None = None
    longest: int | None = None
    batch: int = 4

    recipes = MappingProxyType({"world": MappingProxyType({}), "published": MappingProxyType({})})

    @classmethod
    def of(cls, *, matching: Mapping = MappingProxyType({}), **given) -> "BlendConfig":
        """With the settings of the matching by their names."""
        return cls(matching=MatchingConfig(**matching), **given)

    def _check(self) -> None:
        require_choice("colours", self.colours, COLOURS)
        for name in ("palette", "doubt", "fixed_reach", "colour_eps"):
            require_positive(name, getattr(self, name))
        if self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}")
        if self.grid < 2:
            raise ValueError(f"grid must be at least 2, got {self.grid}")
        if not 0 < self.least_area < 1:
            raise ValueError(f"least_area must lie between 0 and 1, got {self.least_area}")
        if not 0 <= self.haste < math.inf:
            raise ValueError(f"haste must be a finite number, 0 or above, got {self.haste}")
        require_positive("least_trust", self.least_trust)
        require_share("least_trust", self.least_trust)
        require_number("level", self.level)
        if not 0 < self.level <= 1:
            raise ValueError(f"level must be above 0 and at most 1, got {self.level}")
        for name in ("steps", "batch"):
            require_positive(name, getattr(self, name))
        if self.longest is not None:
            require_positive("longest", self.longest)
        if self.solver is not None:
            require_choice("solver", self.solver, SOLVERS)
        if not 1 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale must be a finite number, 1 or above, got {self.guidance_scale}")
