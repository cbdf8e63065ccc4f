"""The nodes for ComfyUI give what geokernels gives, to the bit, in a stand-in for ComfyUI."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from geokernels import world
from geokernels.media.pictures import Picture
from geokernels.models.text_to_image import CONTENT, END, PADDING, START, Embedding
from geokernels.pipelines import BlendConfig, blend_pictures
from geokernels.pipelines.interpolate.couplings import COUPLINGS, ROWS, prompt_path, slerp
from geokernels.testing.comfy_host import ComfyHost, InterruptedByUserError

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
WORKFLOWS = sorted(FOLDER.glob("example_workflows/*.json"))
SETTINGS = {"coupling": "ot", "rows": "all", "eps": 0.05, "coupling_seed": 0}
SCHEDULE, TRANSPORT, ENCODE = "GeokernelsTransportSchedule", "GeokernelsTransport", "GeokernelsTextEncode"
WIDTH, POOLED = 8, 6


@pytest.fixture
def host(monkeypatch):
    return ComfyHost(monkeypatch, FOLDER)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def conditioning(seed: int, rows: int = 77, *, pooled: bool = True, **options) -> list:
    generator = chance(seed)
    made = torch.randn(1, rows, WIDTH, generator=generator)
    beside = {"pooled_output": torch.randn(1, POOLED, generator=generator)} if pooled else {}
    return [[made, {**beside, **options}]]


def key(entry: list, kinds: torch.Tensor | None = None) -> Embedding:
    rows, options = entry
    kinds = torch.full(rows.shape[1:2], CONTENT) if kinds is None else kinds
    pooled = options.get("pooled_output")
    return Embedding(rows[0], kinds, None if pooled is None else pooled[0])


class Clip:
    """As ComfyUI's CLIP: chunks of 77 pairs of token and weight, and rows of them."""

    def __init__(self, streams=("l",)):
        self.streams = streams

    def tokenize(self, text: str) -> dict:
        words = [1 + ord(word[0]) for word in text.split()]
        chunks = []
        for start in range(0, max(len(words), 1), 75):
            inside = words[start : start + 75]
            padding = [49407 if self.streams == ("l",) else 0] * (75 - len(inside))
            chunks.append([(token, 1.0) for token in [49406, *inside, 49407, *padding]])
        return dict.fromkeys(self.streams, chunks)

    def encode_from_tokens_scheduled(self, tokens: dict) -> list:
        ids = torch.tensor([[pair[0] for chunk in tokens[self.streams[0]] for pair in chunk]])
        rows = torch.randn(49408, WIDTH, generator=chance())[ids]
        return [[rows, {"pooled_output": rows.mean(1)[:, :POOLED]}]]


class TestTransport:
    @pytest.mark.parametrize("coupling", COUPLINGS)
    @pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
    def test_to_the_bit(self, host, coupling, t):
        first, second = conditioning(0), conditioning(1)
        settings = {**SETTINGS, "coupling": coupling, "coupling_seed": 5}
        (made,) = host.run(TRANSPORT, first=first, second=second, t=t, **settings)
        ours = prompt_path([key(first[0]), key(second[0])], coupling=coupling, generator=chance(5)).at(t)
        assert torch.equal(made[0][0], ours[0][None])
        assert torch.equal(made[0][1]["pooled_output"], ours[1][None])

    def test_pooled_vectors_lie_on_an_arc(self, host):
        first, second = conditioning(0), conditioning(1)
        (made,) = host.run(TRANSPORT, first=first, second=second, t=0.25, **SETTINGS)
        ends = (entry[0][1]["pooled_output"][0] for entry in (first, second))
        assert torch.equal(made[0][1]["pooled_output"], slerp(*ends, torch.tensor([0.25])))

    @pytest.mark.parametrize("chunks, rows", [((1, 2), 154), ((2, 3), 462), ((3, 1), 231)])
    def test_prompts_of_several_chunks(self, host, chunks, rows):
        first, second = (conditioning(i, 77 * n) for i, n in enumerate(chunks))
        made = [host.run(TRANSPORT, first=first, second=second, t=t, **SETTINGS)[0][0][0] for t in (0, 1)]
        assert made[0].shape == (1, rows, WIDTH)
        for found, end, count in zip(made, (first, second), chunks):
            # every row of an end, each as often as the others
            same = (found[0][:, None] == end[0][0][0]).all(-1)
            assert same.sum(0).unique().tolist() == [rows // (77 * count)]

    def test_half_precision_stays(self, host):
        first, second = ([[e[0][0].half(), {}]] for e in (conditioning(0), conditioning(1)))
        (made,) = host.run(TRANSPORT, first=first, second=second, t=0.5, **SETTINGS)
        assert made[0][0].dtype == torch.float16
        assert "pooled_output" not in made[0][1]

    def test_options_stay_and_what_came_in_too(self, host):
        first, second = (conditioning(i, area=(64, 64, 0, 0), mask=torch.ones(1, 4, 4)) for i in range(2))
        before = first[0][0].clone()
        (made,) = host.run(TRANSPORT, first=first * 2, second=second * 2, t=0.5, **SETTINGS)
        assert len(made) == 2
        assert made[1][1]["area"] == (64, 64, 0, 0)
        assert torch.equal(first[0][0], before)
        assert torch.equal(made[0][0], made[1][0])

    @pytest.mark.parametrize(
        "second, settings, message",
        [
            (conditioning(1) * 2, {}, "second must have as many entries as first, 1, got 2"),
            (
                conditioning(1, area=(8, 8, 0, 0)),
                {},
                "second must have the options of first, but 'area' differs",
            ),
            (conditioning(1, pooled=False), {}, "every prompt must have a pooled vector, or none"),
            ([[torch.zeros(2, 77, WIDTH), {}]], {}, r"second must hold one prompt, .*got \(2, 77, 8\)"),
            (
                [[torch.zeros(1, 77, 5), {}]],
                {},
                "prompts must be read by one text encoder, got rows of width 8 and 5",
            ),
            (
                conditioning(1, 154),
                {"coupling": "row"},
                "prompts must have as many rows each for coupling 'row'",
            ),
            (
                conditioning(1),
                {"rows": "pinned"},
                "first must say which of its rows are padding for rows 'pinned'",
            ),
            (conditioning(1), {"t": 1.5}, "t: Value 1.5 bigger than max of 1.0"),
            (conditioning(1), {"coupling": "nearest"}, "coupling: 'nearest' not in"),
            (conditioning(1), {"eps": 0.0}, "eps: Value 0.0 smaller than min of 0.001"),
        ],
        ids=range(10),
    )
    def test_refusals(self, host, second, settings, message):
        with pytest.raises(ValueError, match=message):
            host.run(TRANSPORT, first=conditioning(0), second=second, **{"t": 0.5, **SETTINGS, **settings})

    def test_masked_rows_are_refused(self, host):
        mask = torch.ones(1, 77)
        fine, masked = (conditioning(i, attention_mask=mask) for i in range(2))
        host.run(TRANSPORT, first=fine, second=masked, t=0.5, **SETTINGS)
        mask[0, -1] = 0
        with pytest.raises(ValueError, match="first must have no masked rows"):
            host.run(TRANSPORT, first=fine, second=masked, t=0.5, **SETTINGS)


class TestEncoder:
    def test_rows_are_told_apart(self, host):
        (made,) = host.run(ENCODE, clip=Clip(("l", "g")), text="red cat")
        assert made[0][1]["geokernels_row_kinds"].tolist() == [START, CONTENT, CONTENT, END, *[PADDING] * 73]
        (long,) = host.run(ENCODE, clip=Clip(), text="a " * 80)
        kinds = long[0][1]["geokernels_row_kinds"].view(2, 77)
        assert [(row == CONTENT).sum().item() for row in kinds] == [75, 5]
        assert kinds[:, 0].tolist() == [START, START]

    @pytest.mark.parametrize("rows", ROWS)
    def test_every_mode_to_the_bit(self, host, rows):
        encoded = [host.run(ENCODE, clip=Clip(), text=text)[0] for text in ("red cat", "a blue hat on a mat")]
        settings = {**SETTINGS, "rows": rows}
        (made,) = host.run(TRANSPORT, first=encoded[0], second=encoded[1], t=0.4, **settings)
        keys = [key(entry[0], entry[0][1]["geokernels_row_kinds"]) for entry in encoded]
        assert torch.equal(made[0][0][0], prompt_path(keys, rows=rows).at(0.4)[0])
        assert "geokernels_row_kinds" not in made[0][1]

    def test_another_encoder_is_refused(self, host):
        with pytest.raises(ValueError, match=r"rows must be those of CLIP alone .*got 77 rows of l, t5xxl"):
            host.run(ENCODE, clip=Clip(("l", "t5xxl")), text="red cat")


class TestSchedule:
    def test_frames_to_the_bit(self, host):
        keys = {name: conditioning(i) for i, name in enumerate(("first", "second", "third"))}
        (made,) = host.run(SCHEDULE, **keys, frames=5, **SETTINGS)
        path = prompt_path([key(entry[0]) for entry in keys.values()])
        assert len(made) == 5
        for i, found in enumerate(made):
            assert torch.equal(found[0][0][0], path.at(i / 4)[0])
        (plain,) = host.run(SCHEDULE, first=keys["first"], second=keys["second"], frames=5, **SETTINGS)
        (single,) = host.run(TRANSPORT, first=keys["first"], second=keys["second"], t=0.25, **SETTINGS)
        assert torch.equal(plain[1][0][0], single[0][0])

    def test_as_one_batch(self, host):
        (made,) = host.run(SCHEDULE, first=conditioning(0), second=conditioning(1), frames=3, **SETTINGS)
        ((batch,),) = host.run_lists("GeokernelsBatchConditionings", {"conditionings": made})
        assert batch[0][0].shape == (3, 77, WIDTH)
        assert batch[0][1]["pooled_output"].shape == (3, POOLED)
        assert torch.equal(batch[0][0][1:2], made[1][0][0])

    def test_what_makes_no_batch(self, host):
        made = [conditioning(0), conditioning(1, 154)]
        with pytest.raises(ValueError, match=r"rows alike in number and width .*\(77, 8\) and \(154, 8\)"):
            host.run_lists("GeokernelsBatchConditionings", {"conditionings": made})
        made = [conditioning(0), conditioning(1, pooled=False)]
        with pytest.raises(ValueError, match="every conditioning must have a pooled vector, or none"):
            host.run_lists("GeokernelsBatchConditionings", {"conditionings": made})


@pytest.fixture(scope="module")
def images():
    scenes = world.sample_scenes(2, generator=chance())
    return [picture.permute(1, 2, 0)[None] for picture in world.render(scenes)]


class TestBlend:
    def run(self, host, images, **settings):
        settings = {"frames": 3, "colours": "moved", "matches": "", **settings}
        return host.run("GeokernelsBlend", first=images[0], second=images[1], **settings)

    def test_to_the_bit(self, host, images):
        frames, transparency = self.run(host, images, colours="faded", matches="10,12:20.5,30\n\n40,40:41,42")
        ours = blend_pictures(
            *(image[0].permute(2, 0, 1) for image in images),
            config=BlendConfig(frames=3, colours="faded"),
            fixed=torch.tensor([[10, 12, 20.5, 30], [40, 40, 41, 42]]),
        )
        assert torch.equal(frames, ours.frames.permute(0, 2, 3, 1))
        assert frames.shape == (3, 64, 64, 3)
        assert 0 <= float(frames.min()) <= float(frames.max()) <= 1
        assert torch.equal(transparency, torch.zeros(3, 64, 64))
        assert host.bar.made[0].seen == [1, 2, 3]

    def test_opacity_and_other_sizes(self, host, images):
        first = torch.cat([images[0], torch.full((1, 64, 64, 1), 0.5)], -1)
        frames, transparency = self.run(host, [first, images[1][:, :48]])
        pictures = [Picture(first[0, ..., :3].permute(2, 0, 1), first[0, ..., 3:].permute(2, 0, 1))]
        ours = blend_pictures(*pictures, images[1][0, :48].permute(2, 0, 1), config=BlendConfig(frames=3))
        assert torch.equal(frames, ours.frames.permute(0, 2, 3, 1))
        assert torch.equal(transparency, 1 - ours.alpha[:, 0])
        assert transparency.max() > 0.4

    def test_cancelled_between_frames(self, host, images):
        host.bar.cancel_at = 2
        with pytest.raises(InterruptedByUserError):
            self.run(host, images)
        assert host.bar.made[0].seen == [1, 2]

    @pytest.mark.parametrize(
        "given, message",
        [
            (
                {"first": torch.zeros(2, 64, 64, 3)},
                r"first must be one image, \(1, H, W, 3\), got \(2, 64, 64, 3\)",
            ),
            ({"first": torch.zeros(1, 8, 64, 3)}, "first must be at least 16 pixels a side, got 64 x 8"),
            ({"matches": "1,2:3"}, "matches must be lines X0,Y0:X1,Y1 in pixels, .*got '1,2:3'"),
            ({"matches": "1,2:3,nan"}, "matches must be lines X0,Y0:X1,Y1 in pixels"),
            ({"matches": "1,2:3,400"}, "fixed points must lie in their picture|400"),
            ({"frames": 1}, "frames: Value 1 smaller than min of 2"),
        ],
        ids=range(6),
    )
    def test_refusals(self, host, images, given, message):
        first = given.pop("first", images[0])
        with pytest.raises(ValueError, match=message):
            self.run(host, [first, images[1]], **given)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
class TestWorkflows:
    def test_links_lead_from_and_to_sockets_of_their_type(self, host, path):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        nodes = {node["id"]: node for node in workflow["nodes"]}
        assert workflow["version"] == 0.4
        assert workflow["last_node_id"] == max(nodes)
        assert workflow["last_link_id"] == max(link[0] for link in workflow["links"])
        for number, source, out, target, into, kind in workflow["links"]:
            given, taken = nodes[source]["outputs"][out], nodes[target]["inputs"][into]
            assert number in given["links"]
            assert taken["link"] == number
            assert given["type"] == taken["type"] == kind
            assert nodes[source]["order"] < nodes[target]["order"]

    def test_our_nodes_are_as_their_schemas_say(self, host, path):
        nodes = [n for n in json.loads(path.read_text(encoding="utf-8"))["nodes"] if n["type"] in host.nodes]
        assert nodes
        for node in nodes:
            schema = host.schemas[node["type"]]
            sockets = [(given.id, given.kind) for given in schema.ordered if not given.widget]
            assert [(given["name"], given["type"]) for given in node["inputs"]] == sockets
            assert [(out["name"], out["type"]) for out in node["outputs"]] == [
                (out.display_name or out.kind, out.kind) for out in schema.outputs
            ]
            widgets = [given for given in schema.ordered if given.widget]
            assert len(node["widgets_values"]) == len(widgets)
            for widget, value in zip(widgets, node["widgets_values"]):
                assert widget.accept(value) == value


def test_the_workflow_of_prompts_runs(host):
    saved, sampled = [], []

    def sample(*widgets, model, positive, negative, latent_image):
        sampled.append((widgets, positive))
        return ({"samples": latent_image["samples"] + positive[0][0].mean()},)

    def rebatch(size, images):
        return [list(torch.cat(images).split(size))]

    rebatch.takes_lists = True
    core = {
        "CheckpointLoaderSimple": lambda name: ("model", Clip(), "vae"),
        "CLIPTextEncode": lambda text, clip: (clip.encode_from_tokens_scheduled(clip.tokenize(text)),),
        "EmptyLatentImage": lambda width, height, n: (
            {"samples": torch.zeros(n, 4, height // 8, width // 8)},
        ),
        "KSampler": sample,
        "VAEDecode": lambda samples, vae: (samples["samples"].permute(0, 2, 3, 1)[..., :3],),
        "RebatchImages": rebatch,
        "SaveAnimatedWEBP": lambda *widgets, images: saved.append(images) or (),
    }
    host.run_workflow(json.loads((FOLDER / "example_workflows/prompts.json").read_text()), core)
    assert len(sampled) == 9
    assert len({widgets for widgets, _ in sampled}) == 1  # one seed, so one noise
    texts = ("a photo of a cat in the snow", "a photo of a fox in the snow")
    ends = [Clip().encode_from_tokens_scheduled(Clip().tokenize(text))[0] for text in texts]
    path = prompt_path([key(end) for end in ends])
    for i, (_, positive) in enumerate(sampled):
        assert torch.equal(positive[0][0][0], path.at(i / 8)[0])
    assert [film.shape for film in saved] == [(9, 64, 64, 3)]


def test_the_workflow_of_a_blend_runs(host):
    workflow = json.loads((FOLDER / "example_workflows/blend.json").read_text())
    blend = next(node for node in workflow["nodes"] if node["type"] == "GeokernelsBlend")
    blend["widgets_values"][0] = 3
    pictures = dict(
        zip(("first.png", "second.png"), world.render(world.sample_scenes(2, generator=chance())))
    )
    saved = []
    core = {
        "LoadImage": lambda name, upload: (pictures[name].permute(1, 2, 0)[None], None),
        "SaveAnimatedWEBP": lambda *widgets, images: saved.append(images) or (),
    }
    host.run_workflow(workflow, core)
    ours = blend_pictures(*pictures.values(), config=BlendConfig(frames=3))
    assert torch.equal(saved[0], ours.frames.permute(0, 2, 3, 1))


def test_what_the_registry_reads():
    settings, ours = (
        tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        for folder in (FOLDER, FOLDER.parents[1])
    )
    version = ours["project"]["version"]
    assert settings["project"]["version"] == version
    assert settings["project"]["dependencies"] == [f"geokernels[morph,video]>={version}"]
    assert {"PublisherId", "DisplayName"} <= settings["tool"]["comfy"].keys()


def test_every_node_is_described(host):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for schema in host.schemas.values():
        assert f"**{schema.display_name}**" in text
        assert schema.description
