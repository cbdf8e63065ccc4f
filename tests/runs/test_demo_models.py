"""The demo's walk, line and samples are what they say, and a part that cannot run says why."""

import json
import sys

import pytest
import torch

from geokernels import world
from geokernels.media.pictures import read_picture
from geokernels.models import load_clip, load_diffusion, load_generator
from geokernels.pipelines import BlendConfig, ClipInversionConfig, MatchingConfig
from geokernels.runs import demo as demo_report
from geokernels.runs.demo import DemoConfig, DemoFolder, run_demo
from geokernels.runs.demo_models import Walk, draw_unseen, line_of_prompts, walk_in_w
from geokernels.runs.record import require_record
from geokernels.world.held_out import held_out

SMALL = DemoConfig(
    attributes=("colour",),
    morph=ClipInversionConfig(recipe="world", steps=1, views=2, guess=2),
    walk=9,
    line=3,
    prompts=2,
    steps=2,
    blend=BlendConfig(recipe="world", frames=2, palette=32, matching=MatchingConfig(points=8, first=8)),
)


@pytest.fixture(scope="module")
def pipeline(pipeline_folder):
    return load_diffusion(pipeline_folder)


def test_a_walk_goes_straight_between_two_samples():
    generator = load_generator()
    walk = walk_in_w(generator, pictures=5, seed=4)
    z = torch.randn(2, generator.config.style_dim, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        first, second = generator.mapping(z)
        middle = generator.synthesis(((first + second) / 2)[None]).clamp(0, 1)
        ends = generator(z).clamp(0, 1)
    torch.testing.assert_close(walk.frames[[0, -1]], ends, rtol=0, atol=1e-4)
    torch.testing.assert_close(walk.frames[2:3], middle, rtol=0, atol=1e-4)
    assert walk.seen == world.judge(walk.frames).names()


def test_evenness_is_the_largest_step_over_the_mean():
    levels = torch.tensor([0.0, 0.1, 0.2, 0.5])
    frames = levels.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    assert Walk(("", ""), frames, []).evenness == pytest.approx(0.3 / (0.5 / 3))


def test_drawn_prompts_are_unseen_and_counted(pipeline):
    drawn = draw_unseen(pipeline, pictures=3, steps=1, guidance=3.0, seed=0, on_step=lambda: None)
    values = [[names.index(w[a]) for w in drawn.wanted] for a, names in world.ATTRIBUTES.items()]
    scenes = world.sample_scenes(3, generator=torch.Generator())
    for attribute, column in zip(world.ATTRIBUTES, values):
        getattr(scenes, attribute).copy_(torch.tensor(column))
    assert held_out(scenes).all()
    assert [world.describe(wanted) for wanted in drawn.wanted] == drawn.prompts
    for attribute in world.ATTRIBUTES:
        equal = [s[attribute] == w[attribute] for s, w in zip(drawn.seen, drawn.wanted)]
        assert drawn.right(attribute) == sum(equal)
    line = line_of_prompts(pipeline, pictures=2, steps=1, guidance=3.0, seed=0, on_step=lambda: None)
    assert line.ends == tuple(drawn.prompts[:2])


def test_the_whole_demo(pipeline_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_report, "load_diffusion", lambda name: load_diffusion(pipeline_folder))
    taken = []
    demo = run_demo(
        load_clip(),
        DemoFolder(tmp_path),
        seed=0,
        config=SMALL,
        on_step=lambda name, value: taken.append(name),
    )
    assert len(taken) == SMALL.total
    record = json.loads((tmp_path / "run.json").read_text())
    require_record(record)
    assert len(record["walk"]["seen"]) == 9
    assert record["between_prompts"]["ends"] == list(demo.line.ends)
    assert [entry["prompt"] for entry in record["drawn"]] == demo.drawn.prompts
    assert {"walk.gif", "walk-frames.png", "prompts.gif", "prompts-frames.png", "samples.png"} < set(
        record["files"]
    )
    assert {p.name for p in tmp_path.iterdir()} == {*record["files"], "run.json"}
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page
    assert page.count("<img ") == page.count('alt="') > 20
    for heading in ("A walk through a generator", "Between two prompts", "Prompts it has never read"):
        assert f"<h2>{heading}</h2>" in page
    assert "left out" not in page
    # one morph, the walk, the line, two prompts: four rows of six
    assert read_picture(tmp_path / "overview.png").rgb.shape == (3, 4 * 200 - 8, 6 * 200 - 8)


def test_the_demo_without_diffusers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    demo = run_demo(load_clip(), DemoFolder(tmp_path), seed=0, config=SMALL)
    assert 'pip install "geokernels[diffusion]"' in demo.line
    page = (tmp_path / "report.html").read_text()
    assert page.count("This part was left out: diffusion models need diffusers and transformers") == 2
    assert json.loads((tmp_path / "run.json").read_text())["drawn"] == {"left_out": demo.drawn}


def test_the_demo_morphs_by_a_recipe():
    assert DemoConfig().morph.recipe == "world"  # its record has every setting
    assert not DemoConfig().morph.left_open()
