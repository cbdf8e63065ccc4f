"""A blend: a film of one picture becoming another, whose places are matched by transport."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._checks import require_shape
from ..._modes import own_modes
from ...losses import pyramid_distance
from ...media.frame_files import FrameFiles, HeldFrames
from ...media.pictures import Picture, fit
from ...models.clip import ClipEncoder
from ...models.flow import latent_model
from ..morph.picture import require_picture
from ..run import Run, Tell
from ..run_state import checksum, plain
from .bands import frame_of
from .colours import find_moves
from .config import BlendConfig
from .drawn import Drawing, find_drawing
from .fixed import Fixed
from .frames import Scene, over_white, trust_of
from .maps import LEAST_SIDE, Maps, find_maps, require_masks
from .places import Places
from .warp import find_motion, missed

MEASURED = 256  # longest side, in pixels, at which steps of a film are measured


class BlendResult(NamedTuple):
    """A film from one picture to another.

    Attributes:
        frames: ``(frames, 3, H, W)`` float32 in [0, 1], over white; the first and the last hold the given
            pictures' pixels, in the middle.
        alpha: Their opacity, ``(frames, 1, H, W)``; None where pictures have none and are of one size.
        times: ``(frames,)`` float64, from 0 to 1.
        maps: Where the pixels of either picture lie in the other.
        folded: Share of the motion's grid that would have been folded over, and was smoothed.
        missed: Pixels by which the motion misses a fixed pair at most; 0 where none is fixed.
    """

    frames: Tensor
    alpha: Tensor | None
    times: Tensor
    maps: Maps
    folded: float
    missed: float


class Blend(Run):
    """A blend in progress, see :class:`Run`: the pictures are matched once, and each step makes a frame.

    Frames are kept as a file holds them, in 8 bits: a run resumed from a state ends as if it had never
    stopped, to the bit on the CPU.

    Args:
        first: ``(3, H, W)`` in [0, 1], or a :class:`geokernels.media.pictures.Picture`, whose transparency is
            kept; at least 16 pixels a side.
        second: Likewise, of any other size.
        config: See :class:`BlendConfig`.
        fixed: Pairs of points that belong together, ``(F, 4)``: x and y in the first picture, x and y in the
            second, in pixels whose centres are at whole numbers.
        maps: Where either picture's pixels lie in the other, where that is known; None to find it.
        encoder: A CLIP or DINO whose patches are matched instead of colours and gradients.
        masks: What may match what: ``(H, W)`` of the first picture and of the second, in [0, 1]. Inside finds
            partners inside alone, outside outside.
        model: A pipeline of diffusers that draws the frames in between: Stable Diffusion 1, 2, XL or 3, or
            FLUX. None moves the pictures alone.
        texts: What the pictures show, one each, which the model reads; None for nothing said.
        made: Where frames are kept; None for memory.

    Raises:
        ValueError: If pictures, pairs, maps, masks or texts do not fit; names them.
        TypeError: If a picture is no tensor of floating-point numbers, or the pipeline is of another kind.
    """

    knobs = "batch, longest or frames, or take smaller pictures"
    replaced = ("_made.kept",)

    @own_modes
    def __init__(
        self,
        first: Tensor | Picture,
        second: Tensor | Picture,
        *,
        config: BlendConfig | None = None,
        fixed: Tensor | None = None,
        maps: Maps | None = None,
        encoder: ClipEncoder | None = None,
        masks: tuple[Tensor, Tensor] | None = None,
        model: Any = None,
        texts: tuple[str, str] | None = None,
        made: HeldFrames | FrameFiles | None = None,
    ):
        self.config = config = (config or BlendConfig()).settled(*([] if model is None else [model]))
        self.first, self.second = (
            _picture(name, given) for name, given in (("first", first), ("second", second))
        )
        sizes = [tuple(picture.rgb.shape[1:]) for picture in (self.first, self.second)]
        self.places, self.encoder = Places.of(*sizes), encoder
        Fixed.of(fixed, self.first.rgb, self.second.rgb)  # refuses what does not fit
        self.fixed = None if fixed is None else torch.as_tensor(fixed, dtype=torch.float32).cpu()
        self._given_maps = maps if maps is None else _fitting(maps, sizes)
        self.masks = None if masks is None else require_masks(masks, (self.first.rgb, self.second.rgb))
        if masks is not None and maps is not None:
            raise ValueError("masks say how maps are found, and these are given: give maps or masks")
        self.model, self.texts = None if model is None else latent_model(model), _texts(model, texts)
        self._drawing: Drawing | None = None
        self.maps: Maps | None = None
        self.folded = self.missed = 0.0
        self._scene: Scene | None = None
        self._made = HeldFrames() if made is None else made
        facts = {
            "config": plain(config),
            "first": _checksum(self.first),
            "second": _checksum(self.second),
            "fixed": [] if self.fixed is None else self.fixed.tolist(),
            "maps": "found" if maps is None else checksum(maps),
            "encoder": "none" if encoder is None else encoder.name,
            "masks": "none" if masks is None else checksum(self.masks),
            "model": "none" if self.model is None else f"{self.model.digest()} {self.model.network.dtype}",
            "texts": list(self.texts),
        }
        self._at_once = 1 if model is None else config.batch
        self._begin(facts, steps=math.ceil(config.frames / self._at_once))

    @property
    def times(self) -> Tensor:
        """When each frame is shown, ``(frames,)``."""
        return torch.linspace(0, 1, self.config.frames, dtype=torch.float64)

    @property
    def made(self) -> Sequence[Tensor]:
        """The frames so far, as files hold them: ``(3, H, W)`` or, with opacity, ``(4, H, W)`` uint8."""
        return self._made

    @own_modes
    def distances(self) -> Tensor:
        """Of consecutive frames, by :func:`geokernels.losses.pyramid_distance`; float64."""
        small = (_measured(over_white(frame)[0]) for frame in self._made)
        return torch.cat([pyramid_distance(a[None], b[None]) for a, b in pairwise(small)]).double()

    @own_modes
    def result(self) -> BlendResult:
        """The frames as they stand, and how they were made."""
        self.prepare()
        shown = [over_white(frame) for frame in self._made]
        frames = [rgb for rgb, _ in shown]
        alphas = [alpha for _, alpha in shown if alpha is not None]
        return BlendResult(
            torch.stack(frames) if frames else torch.empty(0, 3, *self.places.size, dtype=torch.float32),
            torch.stack(alphas) if alphas else None,
            self.times,
            self.maps,
            self.folded,
            self.missed,
        )

    @torch.no_grad()
    def _prepare(self, tell: Tell) -> None:
        config, pictures = self.config, (self.first.rgb, self.second.rgb)
        maps = self._given_maps or find_maps(
            *pictures,
            config.matching,
            encoder=self.encoder,
            fixed=self.fixed,
            masks=self.masks,
            progress=tell,
        )
        maps = Maps(*(part.to(self.first.rgb.device) for part in maps))
        tell("fitting the motion between the pictures")
        motion = find_motion(
            maps,
            self.places,
            fixed=self.fixed,
            grid=config.grid,
            doubt=config.doubt,
            least_area=config.least_area,
            fixed_reach=config.fixed_reach,
        )
        off = 0.0
        if self.fixed is not None and len(self.fixed):
            off = missed(motion, self.fixed.to(motion.shift), self.places)
        layers = _layers(self.first, self.second)
        moves = None
        if config.colours == "moved":
            moves = find_moves(*layers, palette=config.palette, eps=config.colour_eps)
        trust = trust_of(maps, motion.cell)
        self.maps, self.folded, self.missed = maps, motion.folded, off
        self._scene = Scene(layers, self.places, motion, trust, moves, config.least_trust, config.haste)
        if self.model is not None:
            self._drawing = find_drawing(self.model, self._scene, self.texts, config, tell)

    @torch.no_grad()
    def _step(self) -> Tensor:
        """Make the next frame, or as many as a model draws at once."""
        times, drawing, scene = self._times_of(self.index), self._drawing, self._scene
        between = [t for t in times if 0 < t < 1]
        drawn = dict(zip(between, drawing.draw(between))) if drawing is not None and between else {}
        for t in times:
            colours = partial(drawing.complete, drawn[t], t) if t in drawn else None
            self._made.append(frame_of(scene, t, colours))
        return torch.empty(0, dtype=torch.float32)

    def _times_of(self, step: int) -> list[float]:
        """Those of the frames that a step makes."""
        last = self.config.frames - 1
        first = step * self._at_once
        return [i / last for i in range(first, min(first + self._at_once, last + 1))]

    def _own_state(self) -> dict:
        return {"frames": list(self._made.kept)}

    def _take_state(self, state: dict) -> None:
        self._made.take_back(state["frames"])


def blend_pictures(
    first: Tensor | Picture,
    second: Tensor | Picture,
    *,
    config: BlendConfig | None = None,
    fixed: Tensor | None = None,
    maps: Maps | None = None,
    encoder: ClipEncoder | None = None,
    masks: tuple[Tensor, Tensor] | None = None,
    model: Any = None,
    texts: tuple[str, str] | None = None,
    callback: Callable[[Blend], None] | None = None,
) -> BlendResult:
    """Make a film of one picture becoming another; see :class:`Blend` for arguments and errors.

    Args:
        first: ``(3, H, W)`` in [0, 1], or a picture with its transparency.
        second: Likewise, of any size.
        config: See :class:`BlendConfig`.
        fixed: Pairs of points that belong together, ``(F, 4)``.
        maps: Where pixels lie in the other picture, where that is known.
        encoder: A CLIP or DINO whose patches are matched.
        masks: What may match what: inside finds partners inside alone.
        model: A pipeline of diffusers that draws the frames in between.
        texts: What the pictures show, which the model reads.
        callback: Called after each step.

    Returns:
        The frames, when they are shown, and the maps by which they were made.

    Example:
        >>> from geokernels import world
        >>> scenes = world.sample_scenes(2, generator=torch.Generator().manual_seed(0))
        >>> result = blend_pictures(*world.render(scenes), config=BlendConfig(frames=3))
        >>> result.frames.shape
        torch.Size([3, 3, 64, 64])
    """
    run = Blend(
        first,
        second,
        config=config,
        fixed=fixed,
        maps=maps,
        encoder=encoder,
        masks=masks,
        model=model,
        texts=texts,
    )
    run.finish(callback)
    return run.result()


def _picture(name: str, given: Tensor | Picture) -> Picture:
    picture = given if isinstance(given, Picture) else Picture(given)
    require_picture(picture.rgb, name)
    size = tuple(picture.rgb.shape[1:])
    if min(size) < LEAST_SIDE:
        raise ValueError(f"{name} must be at least {LEAST_SIDE} pixels a side, got {size[1]} x {size[0]}")
    if picture.alpha is not None:
        require_shape(f"opacity of {name}", picture.alpha, (1, *size), "(1, H, W)")
    alpha = None if picture.alpha is None else picture.alpha.float()
    return Picture(picture.rgb.float(), alpha)


def _measured(rgb: Tensor) -> Tensor:
    """A frame as it is compared."""
    return fit(rgb, MEASURED) if max(rgb.shape[1:]) > MEASURED else rgb


def _texts(model: Any, texts: tuple[str, str] | None) -> tuple[str, ...]:
    """What the model reads of either picture; nothing without one."""
    if model is None:
        if texts is not None:
            raise ValueError("texts must be left out without a model, which is not given")
        return ()
    texts = ("", "") if texts is None else texts
    if isinstance(texts, str) or len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"texts must be two, one of each picture, got {texts!r}")
    return tuple(texts)


def _layers(first: Picture, second: Picture) -> tuple[Tensor, Tensor]:
    """Both pictures, with opacity where either has any."""
    pictures = (first, second)
    if all(picture.alpha is None for picture in pictures):
        return first.rgb, second.rgb
    alphas = [torch.ones_like(p.rgb[:1]) if p.alpha is None else p.alpha for p in pictures]
    return tuple(torch.cat([picture.rgb, alpha]) for picture, alpha in zip(pictures, alphas))


def _checksum(picture: Picture) -> str:
    return checksum([picture.rgb] if picture.alpha is None else [picture.rgb, picture.alpha])


def _fitting(maps: Maps, sizes) -> Maps:
    """Maps of pictures of these sizes.

    Raises:
        ValueError: If they are of others; names the first that is wrong.
    """
    for name, size, width in (
        ("to_b", sizes[0], (2,)),
        ("to_a", sizes[1], (2,)),
        ("confidence_a", sizes[0], ()),
        ("confidence_b", sizes[1], ()),
    ):
        layout = "(H, W, 2)" if width else "(H, W)"
        require_shape(f"maps.{name}", getattr(maps, name), (*size, *width), layout)
    return maps
