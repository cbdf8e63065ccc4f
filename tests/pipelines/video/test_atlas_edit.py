"""Atlases explain clips; an edit of one is seen in every frame, keeps the rest, and resumes to the bit."""

import json
import random
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save_file

from geokernels import world
from geokernels.models import AtlasShape, LayeredAtlas, load_atlas, load_clip, load_flow, save_atlas
from geokernels.models.atlas import KIND, _checksum
from geokernels.pipelines import (
    AtlasFit,
    AtlasFitConfig,
    VideoEdit,
    VideoEditConfig,
    edit_video,
    fit_atlas,
    prepare_footage,
)
from geokernels.pipelines.video.atlas_view import view_frame

pytest.importorskip("cv2")
TINY = AtlasFitConfig(steps=6, samples=32, shape=AtlasShape(width=16, layers=2, map_layers=1, octaves=3))
# far enough for the foreground to be where the masks are
FAR = replace(TINY, steps=100, samples=128, learning_rate=0.02, bootstrap=1.0, bootstrapped=2.0)
SHORT = VideoEditConfig(recipe="world", steps=5, views=3, screen_views=2, crops=3, guess=2.0, widths=(8, 16))
TEXTS = "a red object", "a blue object"


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def clip(frames=5, size=24, seed=1):
    generator = chance(seed)
    return world.render_clip(world.sample_scenes(1, generator=generator), frames, size, generator=generator)


@pytest.fixture(scope="module")
def footage():
    truth = clip()
    return prepare_footage(truth.frames, load_flow(), masks=truth.masks)


@pytest.fixture(scope="module")
def atlas(footage):
    return fit_atlas(footage, config=FAR, generator=chance()).atlas


@pytest.fixture
def begin(footage, atlas, tiny_encoder):
    def begin(*, encoders=None, config=SHORT, seed=0, atlas=atlas):
        encoders = [tiny_encoder()] if encoders is None else encoders
        return VideoEdit(footage, atlas, encoders, *TEXTS, config=config, generator=chance(seed))

    return begin


def finish(run):
    while not run.done:
        run.step()
    return run


def psnr(a, b):
    return -10 * (a - b).square().mean().log10()


def test_a_fit_explains_the_frames_and_finds_the_object():
    truth = clip(6, 32)
    footage = prepare_footage(truth.frames, load_flow(), masks=truth.masks)
    shape = AtlasShape(width=32, layers=2, octaves=4)
    config = AtlasFitConfig(steps=150, samples=256, learning_rate=0.01, shape=shape)
    found = fit_atlas(footage, config=config, generator=chance())
    frames = torch.stack([found.atlas.frame(t) for t in range(6)])
    assert psnr(frames, truth.frames) > 24
    cover = torch.stack([found.atlas.look(t).opacity.view(1, 32, 32) for t in range(6)])
    assert (cover - truth.masks).abs().mean() < 0.03
    assert found.history.shape == (150, 8)
    assert found.history[-1, 0] < 0.2 * found.history[0, 0]
    width, height = (found.atlas.bounds[:, 2:] - found.atlas.bounds[:, :2]).unbind(1)
    assert width[0] < width[1]
    assert height[0] < height[1]


@pytest.mark.parametrize("stop", [1, 4])
def test_a_fit_resumes_to_the_identical_atlas(footage, stop, tmp_path):
    whole, first = (AtlasFit(footage, config=TINY, generator=chance(3)) for _ in range(2))
    finish(whole)
    for _ in range(stop):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = AtlasFit(footage, config=TINY, generator=chance(3))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    finish(second)
    for name, value in whole.atlas.state_dict().items():
        assert torch.equal(value, second.atlas.state_dict()[name]), name
    assert torch.equal(whole.history, second.history)
    other = AtlasFit(footage, config=TINY, generator=chance(4))
    with pytest.raises(ValueError, match="another seed"):
        other.load_state_dict(first.state_dict())


def test_a_saved_atlas_is_the_same_and_is_refused_to_another_clip(atlas, begin, tiny_encoder, tmp_path):
    save_atlas(atlas, tmp_path / "atlas.safetensors")
    kept = load_atlas(tmp_path / "atlas.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(atlas.state_dict().values(), kept.state_dict().values()))
    assert torch.equal(finish(begin()).painted(), finish(begin(atlas=kept)).painted())
    other = prepare_footage(clip(seed=2).frames, load_flow())
    with pytest.raises(ValueError, match="the atlas must be of this clip, whose checksum is"):
        VideoEdit(other, kept, [tiny_encoder()], *TEXTS, config=SHORT, generator=chance())


def test_files_that_are_no_atlas_are_refused(atlas, tmp_path):
    path = tmp_path / "atlas.safetensors"
    with pytest.raises(ValueError, match="existing file"):
        load_atlas(path)
    save_atlas(atlas, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_atlas(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="a file that this version of geokernels wrote"):
        load_atlas(path)


def test_damage_to_an_atlas_is_found(atlas, tmp_path):
    path, luck = tmp_path / "atlas.safetensors", random.Random(0)
    save_atlas(atlas, path)
    whole, kept = path.read_bytes(), load_atlas(path).state_dict()
    for place in luck.sample(range(8 * len(whole)), 200):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|this version of geokernels wrote"):
            load_atlas(path)
    path.write_bytes(whole)
    assert all(torch.equal(value, kept[name]) for name, value in load_atlas(path).state_dict().items())


@pytest.mark.parametrize(
    "about",
    ["[]", "[1, 2]", "3", "{}", '{"kind": "layered atlas 2", "shape": [1]}', "[" * 100_000, "{"],
    ids=lambda about: about[:20],
)
def test_metadata_of_other_shapes(about, atlas, tmp_path):
    path = tmp_path / "atlas.safetensors"
    save_file(atlas.state_dict(), path, metadata={"geokernels": about})
    with pytest.raises(ValueError, match="atlas must be"):
        load_atlas(path)


def test_an_atlas_sealed_with_other_entries(atlas, tmp_path):
    path, state = tmp_path / "atlas.safetensors", atlas.state_dict()
    good = {"kind": KIND, "clip": "", "size": list(atlas.size), "shape": asdict(atlas.shape)}
    for about, kept in (
        ({"kind": KIND}, state),
        (good | {"shape": [1]}, state),
        (good | {"shape": {"depth": 1}}, state),
        (good, {name: value for name, value in state.items() if name != "motion"}),
        (good, state | {"bounds": torch.zeros(1)}),
    ):
        about = about | {"sha256": _checksum(about, kept)}
        save_file(kept, path, metadata={"geokernels": json.dumps(about)})
        with pytest.raises(ValueError, match="atlas must be of this version of geokernels"):
            load_atlas(path)


@pytest.mark.parametrize("layer", ["foreground", "background"])
def test_the_other_layer_is_kept_to_the_bit(begin, footage, atlas, layer):
    run = begin(config=replace(SHORT, layer=layer))
    full = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 4, 1, 1).expand(1, -1, *run.source.shape[-2:])
    kept = covered = 0
    for index in range(len(footage)):
        frame = run.frame(index, full)
        opacity = ((atlas.look(index).opacity.view(1, 24, 24) - 0.03) / 0.94).clamp(0, 1)
        share = opacity if layer == "foreground" else 1 - opacity
        bare = (share == 0).expand(3, -1, -1)
        assert torch.equal(frame[bare], footage.frame(index)[bare])
        whole = (share == 1)[0]
        if whole.any():  # there the edit replaces what the atlas had, and the rest of the frame stays
            own = atlas.look(index).colours[0 if layer == "foreground" else 1].T.view(3, 24, 24)
            expected = (footage.frame(index) + full[0, :3, :1, :1] - own).clamp(0, 1)
            assert torch.allclose(frame[:, whole], expected[:, whole], atol=1e-5)
        kept, covered = kept + bare.sum(), covered + whole.sum()
    assert kept > 0
    assert covered > 0


@pytest.mark.parametrize("layer", ["foreground", "background"])
def test_a_view_holds_the_colours_of_its_own_layer_alone(begin, footage, atlas, layer):
    """Views are kept, and what the other layer shows would be kept with them."""
    run = begin(config=replace(SHORT, layer=layer))
    view = view_frame(atlas, run.layer, 1, footage.frame(1))
    assert view.own.untyped_storage().nbytes() == 3 * 24 * 24 * 4
    seen = atlas.look(1)
    assert torch.equal(view.own, seen.colours[run.layer].T.view(1, 3, 24, 24))
    assert torch.equal(run.frame(1), run.frame(1, seen=seen))


def test_same_seed_same_edit_and_another_seed_another(begin):
    first, again, other = (finish(begin(seed=s)) for s in (1, 1, 2))
    assert torch.equal(first.painted(), again.painted())
    assert torch.equal(first.history, again.history)
    assert not torch.equal(first.painted(), other.painted())
    assert first.terms == ("loss", "spherical", "consistency", "structure", "screen", "sparsity")


@pytest.mark.parametrize("stop", [1, 4])
def test_an_edit_resumes_to_the_identical_frames(begin, stop, tmp_path):
    config = replace(SHORT, regularisation=1.0)
    whole, first = finish(begin(config=config)), begin(config=config)
    for _ in range(stop):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = begin(config=config)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    finish(second)
    assert all(torch.equal(a, b) for a, b in zip(whole.frames(), second.frames(), strict=True))
    assert torch.equal(whole.history, second.history)
    with pytest.raises(ValueError, match="layer"):
        begin(config=replace(config, layer="background")).load_state_dict(first.state_dict())


def test_a_step_encodes_the_composite_once_and_each_window_of_the_source_once(begin, tiny_encoder):
    encoder = tiny_encoder()
    run = begin(encoders=[encoder])
    counts = []
    for _ in range(5):
        before = encoder.shown
        run.step()
        counts.append(encoder.shown - before)
    assert counts == [3 + 3 + 2] * 3 + [3 + 2] * 2


def test_frames_are_read_and_made_one_at_a_time(begin, footage, monkeypatch):
    run = begin(config=replace(SHORT, crops=2))
    asked = []
    frame = type(footage).frame
    monkeypatch.setattr(type(footage), "frame", lambda self, i: asked.append(i) or frame(self, i))
    for _ in range(4):
        run.step()
    assert asked == [1, 3]  # one a window, whatever the length of the clip
    frames = run.frames()
    next(frames), next(frames)
    assert asked == [1, 3, 0, 1]


def test_a_layer_without_anything_is_refused(tiny_encoder):
    frames = clip(2).frames[:1]
    footage = prepare_footage(frames, load_flow())
    atlas = fit_atlas(footage, config=replace(FAR, steps=40), generator=chance()).atlas
    with pytest.raises(ValueError, match="nothing was found in its foreground; give masks of it"):
        VideoEdit(footage, atlas, [tiny_encoder()], *TEXTS, config=SHORT, generator=chance())
    # a clip of one frame can be edited all the same
    config = replace(SHORT, layer="background", steps=2)
    found = edit_video(footage, atlas, [tiny_encoder()], *TEXTS, config=config, generator=chance())
    (frame,) = found.frames
    assert frame.shape == frames[0].shape
    with pytest.raises(ValueError, match="layer must be one of foreground, background, got 'middle'"):
        VideoEditConfig(layer="middle")


def test_settings_are_refused_or_follow_the_size():
    for name in ("steps", "samples", "learning_rate"):
        with pytest.raises(ValueError, match=name):
            AtlasFitConfig(**{name: 0})
    with pytest.raises(ValueError, match="rigidity must be a finite number"):
        AtlasFitConfig(rigidity=-1.0)
    small, large = AtlasFitConfig.of_size((64, 64)), AtlasFitConfig.of_size((432, 768), steps=7)
    assert small == AtlasFitConfig(recipe="world")
    assert large == AtlasFitConfig(recipe="published", steps=7)
    assert AtlasFitConfig.of_size((432, 768), recipe="world").samples == small.samples
    atlas = LayeredAtlas(torch.eye(2, 3).expand(2, 3, 2, 3), (16, 24), generator=chance())
    points = atlas.points(1)
    # networks add nothing to the affine motion at first
    assert torch.allclose(atlas.place(0, points), points.place)


def test_the_judge_sees_the_edit_in_every_frame():
    truth = clip(4, 64)
    footage = prepare_footage(truth.frames, load_flow(), masks=truth.masks)
    config = AtlasFitConfig(steps=150, samples=256, learning_rate=0.01, shape=AtlasShape(width=32, layers=2))
    atlas = fit_atlas(footage, config=config, generator=chance()).atlas
    goal = world.edit(truth.scenes[0], "colour", generator=chance(80))
    short = VideoEditConfig(steps=4, views=2, crops=2)
    texts = truth.caption, world.caption(goal)[0]
    found = edit_video(footage, atlas, [load_clip()], *texts, config=short, generator=chance())
    frames = torch.stack(list(found.frames))
    asked = goal.names()[0]["colour"]
    assert [v["colour"] for v in world.judge(truth.frames).names()] != [asked] * 4
    assert [v["colour"] for v in world.judge(frames).names()] == [asked] * 4
    outside = (truth.masks < 0.01).expand(-1, 3, -1, -1)
    assert psnr(frames[outside], truth.frames[outside]) > 28
