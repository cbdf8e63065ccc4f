"""The nodes: their sockets, widgets and limits; what they do is in geokernels and ``conditioning.py``."""

import math

import comfy.utils
import torch
from comfy_api.latest import ComfyExtension, io

from geokernels.media.pictures import Picture
from geokernels.pipelines import BlendConfig, blend_pictures
from geokernels.pipelines.blend.config import COLOURS
from geokernels.pipelines.interpolate.couplings import COUPLINGS, ROWS

from .conditioning import KINDS, batched, kinds_of, transport

CATEGORY = "geokernels"
MOST_FRAMES = 4096


def _settings() -> list:
    """The inputs that both nodes of transport have."""
    return [
        io.Combo.Input(
            "coupling",
            options=list(COUPLINGS),
            default="ot",
            tooltip="Which row goes where: the cheapest assignment (ot), the mean of where an entropic plan "
            "sends it, in order on straight lines (row) or on arcs (slerp), or anywhere (random).",
        ),
        io.Combo.Input(
            "rows",
            options=list(ROWS),
            default="all",
            tooltip="all: any row may go anywhere. pinned: start to start, end to end. blockwise: also "
            "content to content. The last two need CLIP Text Encode (geokernels).",
        ),
        io.Float.Input(
            "eps",
            default=0.05,
            min=0.001,
            max=10.0,
            step=0.001,
            round=0.001,
            tooltip="Regularisation of the entropic coupling, as a share of the mean cost.",
        ),
        io.Int.Input(
            "coupling_seed", default=0, min=0, max=2**32 - 1, tooltip="Chance of the random coupling."
        ),
    ]


class TextEncode(io.ComfyNode):
    """Encodes a text, and remembers which rows start it, end it and pad it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Sockets and widgets."""
        return io.Schema(
            node_id="GeokernelsTextEncode",
            display_name="CLIP Text Encode (geokernels)",
            category=CATEGORY,
            description="As CLIP Text Encode, and with what each row stands for, which transport with rows "
            "'pinned' or 'blockwise' needs. For Stable Diffusion 1, 2 and XL.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("text", multiline=True, dynamic_prompts=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, text) -> io.NodeOutput:
        """Encode it."""
        tokens = clip.tokenize(text)
        entries = clip.encode_from_tokens_scheduled(tokens)
        return io.NodeOutput(
            [[rows, {**options, KINDS: kinds_of(tokens, rows.shape[1])}] for rows, options in entries]
        )


class Transport(io.ComfyNode):
    """One conditioning on the way between two."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Sockets and widgets."""
        return io.Schema(
            node_id="GeokernelsTransport",
            display_name="Conditioning Transport",
            category=CATEGORY,
            description="Moves the rows of one prompt towards those of another along the cheapest coupling, "
            "and the pooled vector on an arc. Prompts may differ in their number of chunks.",
            inputs=[
                io.Conditioning.Input("first"),
                io.Conditioning.Input("second"),
                io.Float.Input(
                    "t", default=0.5, min=0.0, max=1.0, step=0.01, round=0.001, tooltip="0: first, 1: second."
                ),
                *_settings(),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, first, second, t, coupling, rows, eps, coupling_seed) -> io.NodeOutput:
        """Move them."""
        settings = {"coupling": coupling, "rows": rows, "eps": eps, "seed": coupling_seed}
        return io.NodeOutput(transport({"first": first, "second": second}, [t], **settings)[0])


class TransportSchedule(io.ComfyNode):
    """A list of conditionings on the way through two, three or four."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Sockets and widgets."""
        return io.Schema(
            node_id="GeokernelsTransportSchedule",
            display_name="Conditioning Transport Schedule",
            category=CATEGORY,
            description="A list of conditionings, one a frame, at even times on the way from the first to "
            "the last. A sampler behind it runs once for each, from the same noise.",
            inputs=[
                io.Conditioning.Input("first"),
                io.Conditioning.Input("second"),
                io.Int.Input("frames", default=9, min=2, max=MOST_FRAMES, tooltip="Both ends included."),
                *_settings(),
                io.Conditioning.Input("third", optional=True),
                io.Conditioning.Input("fourth", optional=True),
            ],
            outputs=[io.Conditioning.Output(display_name="conditionings", is_output_list=True)],
        )

    @classmethod
    def execute(
        cls, first, second, frames, coupling, rows, eps, coupling_seed, third=None, fourth=None
    ) -> io.NodeOutput:
        """Move them."""
        keys = {"first": first, "second": second, "third": third, "fourth": fourth}
        keys = {name: key for name, key in keys.items() if key is not None}
        times = torch.linspace(0, 1, frames, dtype=torch.float64).tolist()
        settings = {"coupling": coupling, "rows": rows, "eps": eps, "seed": coupling_seed}
        return io.NodeOutput(transport(keys, times, **settings))


class BatchConditionings(io.ComfyNode):
    """A list of conditionings as one batch, for a batch of latents as long."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Sockets and widgets."""
        return io.Schema(
            node_id="GeokernelsBatchConditionings",
            display_name="Batch Conditionings",
            category=CATEGORY,
            description="Makes one conditioning of a list: the i-th picture of a batch is then sampled with "
            "the i-th, in one run of the sampler. Give it a batch of as many latents.",
            is_input_list=True,
            inputs=[io.Conditioning.Input("conditionings")],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, conditionings) -> io.NodeOutput:
        """Put them one after the other."""
        return io.NodeOutput(batched(conditionings))


class Blend(io.ComfyNode):
    """A film of one picture becoming another by transport, without any model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Sockets and widgets."""
        return io.Schema(
            node_id="GeokernelsBlend",
            display_name="Blend Two Images by Transport",
            category=CATEGORY,
            description="Matches the places of two images by optimal transport, and moves one into the "
            "other. No text, no model; the images may differ in size.",
            inputs=[
                io.Image.Input("first"),
                io.Image.Input("second"),
                io.Int.Input("frames", default=17, min=2, max=MOST_FRAMES, tooltip="Both images included."),
                io.Combo.Input(
                    "colours",
                    options=list(COLOURS),
                    default="moved",
                    tooltip="Of what has no partner: moved from palette to palette, or faded.",
                ),
                io.String.Input(
                    "matches",
                    multiline=True,
                    default="",
                    tooltip="Pairs of points that belong together, one a line: X0,Y0:X1,Y1 in pixels.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames"),
                io.Mask.Output(display_name="transparency", tooltip="0 where frames are opaque."),
            ],
        )

    @classmethod
    def execute(cls, first, second, frames, colours, matches) -> io.NodeOutput:
        """Make the film; what ComfyUI cancels ends after the frame that is being made."""
        pictures = _picture("first", first), _picture("second", second)
        fixed, bar = _pairs(matches), comfy.utils.ProgressBar(frames)
        result = blend_pictures(
            *pictures,
            config=BlendConfig(frames=frames, colours=colours),
            fixed=fixed,
            callback=lambda run: bar.update_absolute(run.index, frames),
        )
        opaque = torch.zeros(len(result.frames), *result.frames.shape[2:])
        transparency = opaque if result.alpha is None else 1 - result.alpha[:, 0]
        return io.NodeOutput(result.frames.permute(0, 2, 3, 1).contiguous(), transparency)


def _picture(name: str, image: torch.Tensor) -> Picture:
    """One of ComfyUI's images, (1, H, W, 3), or with its opacity as a fourth channel."""
    if image.dim() != 4 or len(image) != 1 or image.shape[-1] not in (3, 4):
        raise ValueError(f"{name} must be one image, (1, H, W, 3), got {tuple(image.shape)}")
    channels = image[0].permute(2, 0, 1).float().cpu()
    return Picture(channels[:3], channels[3:] if len(channels) == 4 else None)


def _pairs(text: str) -> torch.Tensor | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = []
    for line in lines:
        try:
            (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in line.split(":"))
        except ValueError:
            x0 = y0 = x1 = y1 = math.nan
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            raise ValueError(
                f"matches must be lines X0,Y0:X1,Y1 in pixels, such as 120,80:96.5,70, got {line!r}"
            )
        pairs.append([x0, y0, x1, y1])
    return torch.tensor(pairs) if pairs else None


class GeokernelsExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All of them."""
        return [TextEncode, Transport, TransportSchedule, BatchConditionings, Blend]


async def comfy_entrypoint() -> GeokernelsExtension:
    """What ComfyUI calls when it loads this folder."""
    return GeokernelsExtension()
