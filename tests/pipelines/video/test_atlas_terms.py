"""A fit's terms are those of Kasten et al., pixel by pixel in float64; schedules are shares of the steps."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from geokernels import world
from geokernels.models import AtlasShape, load_flow
from geokernels.models.atlas import LayeredAtlas, Points, encode
from geokernels.pipelines import AtlasFit, AtlasFitConfig, prepare_footage
from geokernels.pipelines.video.atlas_recipes import PUBLISHED
from geokernels.pipelines.video.atlas_sample import FitSample, draw_sample
from geokernels.pipelines.video.atlas_terms import fit_terms, global_rigidity
from geokernels.pipelines.video.motion import agreement

pytest.importorskip("cv2")
H, W, T, N = 24, 32, 4, 24
LONGEST, SCALE, FAR = 32, 0.8, 10.0
SHAPE = AtlasShape(
    width=8, map_layers=2, ground_layers=1, layers=3, skips=(2, 3), octaves=3, wavelength=4.0, scale=SCALE
)
CONFIG = AtlasFitConfig(recipe="published", steps=80, samples=N, shape=SHAPE)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def footage():
    truth = world.render_clip(world.sample_scenes(1, generator=chance(3)), T, LONGEST, generator=chance(3))
    return prepare_footage(truth.frames[..., 4:28, :], load_flow(), masks=truth.masks[..., 4:28, :])


@pytest.fixture
def atlas(footage):
    """In float64, with maps that are not affine."""
    atlas = LayeredAtlas(footage.motion, (H, W), SHAPE, generator=chance()).double()
    for index, weights in enumerate(atlas.parameters()):
        with torch.no_grad():
            weights += 0.05 * torch.randn(weights.shape, generator=chance(index), dtype=torch.float64)
    return atlas


def drawn(footage, ways):
    """A sample in float64; what is drawn is that, rounded."""
    sample = draw_sample(footage, N, flow_ways=ways, generator=chance(5), device=torch.device("cpu"))
    groups = [[(t, x + dx, y + dy) for t, x, y in pixels_of(sample)] for dx, dy in ((0, 0), (1, 0), (0, 1))]
    for way in (1, -1)[: len(sample.sure)]:
        there = [along(footage, *pixel, way) or pixel for pixel in pixels_of(sample)]
        groups.append(there)
    exact = Points(
        torch.tensor([t for group in groups for t, _, _ in group]),
        torch.cat([plane(x, y) for group in groups for _, x, y in group]),
    )
    told = torch.cat([torch.ones(3 * N, dtype=torch.bool), (sample.sure > 0).flatten()])
    assert torch.equal(sample.points.frame[told], exact.frame[told])
    assert torch.allclose(sample.points.place[told].double(), exact.place[told], atol=1e-6)
    colours = [footage.frame(t)[:, y, x].double() for group in groups[:3] for t, x, y in group]
    assert torch.equal(sample.colours, torch.stack(colours).float().view(3, N, 3))
    masks = torch.tensor([footage.masks[pixel_of(pixel)] for pixel in groups[0]])[:, None].double() / 255
    return FitSample(exact, torch.stack(colours).view(3, N, 3), sample.sure.double(), masks)


def pixel_of(point):
    t, x, y = point
    return t, y, x


def plane(x, y):
    """A point, in pixels from the left and from above, in the plane of its frame."""
    return torch.tensor([[x + (1 - W) / 2, y + (1 - H) / 2]], dtype=torch.float64) * (2 / LONGEST)


def pixels_of(sample):
    """Frame, column and row of every pixel that was drawn."""
    frame, place = sample.points.frame[:N], sample.points.place[:N] * (LONGEST / 2)
    column = (place[:, 0] + (W - 1) / 2).round().long()
    row = (place[:, 1] + (H - 1) / 2).round().long()
    return list(zip(frame.tolist(), column.tolist(), row.tolist(), strict=True))


def seen(atlas, t, x, y):
    """What the atlas says of the point (x, y) of frame t, in pixels from the left and from above."""
    look = atlas(Points(torch.tensor([t]), plane(x, y)))
    # a frame's pixels in the plane of the atlas
    places, opacity = look.places[:, 0] * (LONGEST / 2) / SCALE, look.opacity[0, 0]
    return SimpleNamespace(place=places, opacity=opacity, layers=look.colours[:, 0], c=look.mixed()[0])


def stretch(here, right, below, distance=1.0):
    """|J^T J| + |(J^T J)^-1| of Frobenius; less by what a turn has."""
    J = torch.stack([right - here, below - here], 1) / distance
    G = J.T @ J
    return torch.linalg.norm(G) + torch.linalg.norm(torch.linalg.inv(G)) - 2 * 2**0.5


def along(footage, t, x, y, way):
    """Where the flow takes a pixel, and whether it is trusted; None at the ends of the clip."""
    if not 0 <= t + way < T:
        return None
    ways = (footage.flow, footage.trusted) if way > 0 else (footage.back, footage.back_trusted)
    (right, down), trusted = (array[t if way > 0 else t - 1, y, x] for array in ways)
    return (t + way, x + float(right), y + float(down)) if trusted else None


def plain_terms(atlas, footage, sample):
    """The terms as published, by loops over pixels."""
    rows = {name: [] for name in ("colour", "gradient", "rigidity", "sparsity", "bootstrap")}
    rows |= {"global_rigidity": [], "global_rigidity_ground": []}
    flows = {(term, way): [] for term in ("flow", "cover_flow") for way in (1, -1)}
    for t, x, y in pixels_of(sample):
        here, right, below = seen(atlas, t, x, y), seen(atlas, t, x + 1, y), seen(atlas, t, x, y + 1)
        true = footage.frame(t).double()
        # ours: of the neighbours, too, which are there anyway
        for at, dx, dy in ((here, 0, 0), (right, 1, 0), (below, 0, 1)):
            rows["colour"].append((at.c - true[:, y + dy, x + dx]).square().sum())
        rows["gradient"].append(
            (right.c - here.c - true[:, y, x + 1] + true[:, y, x]).square().sum()
            + (below.c - here.c - true[:, y + 1, x] + true[:, y, x]).square().sum()
        )
        rows["rigidity"].append(sum(stretch(here.place[i], right.place[i], below.place[i]) for i in (0, 1)))
        left, above = seen(atlas, t, x - FAR, y), seen(atlas, t, x, y - FAR)
        for i, name in enumerate(("global_rigidity", "global_rigidity_ground")):
            rows[name].append(stretch(here.place[i], left.place[i], above.place[i], FAR))
        rows["sparsity"].append(((1 - here.opacity) * here.layers[0]).square().sum())
        mask = footage.masks[t, y, x] / 255
        rows["bootstrap"].append(-mask * here.opacity.log() - (1 - mask) * (1 - here.opacity).log())
        for way in (1, -1):
            there = along(footage, t, x, y, way)
            if there is not None:
                other, share = seen(atlas, *there), (here.opacity, 1 - here.opacity)
                flows["flow", way].append(
                    sum(share[i] * torch.linalg.norm(here.place[i] - other.place[i]) for i in (0, 1))
                )
                flows["cover_flow", way].append((here.opacity - other.opacity).abs())
    found = {name: torch.stack(values).mean() for name, values in rows.items()}
    for term in ("flow", "cover_flow"):
        found[term] = sum(torch.stack(flows[term, way]).mean() / 2 for way in (1, -1))
    return found


def ours(atlas, sample):
    terms = fit_terms(atlas, sample, flow_ways="both")
    for layer, name in enumerate(("global_rigidity", "global_rigidity_ground")):
        terms[name] = global_rigidity(atlas, layer, sample, FAR)
    return terms


def slopes(atlas, value):
    parameters = list(atlas.parameters())
    return torch.autograd.grad(
        value, parameters, retain_graph=True, materialize_grads=True, allow_unused=True
    )


def test_every_term_and_its_gradient_are_the_published_ones(atlas, footage):
    sample = drawn(footage, "both")
    assert {t for t, *_ in pixels_of(sample)} == set(range(T))  # the ends of the clip among them
    assert 0 < (sample.sure > 0).sum() < 2 * N
    expected, found = plain_terms(atlas, footage, sample), ours(atlas, sample)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-6), name
        for a, b in zip(slopes(atlas, found[name]), slopes(atlas, value), strict=True):
            assert (a - b).abs().max() <= 1e-6 * max(1e-3, b.abs().max()), name


def test_forward_flow_is_a_mean_over_all_pixels_that_leaves_the_opacity_alone(atlas, footage):
    sample, total = drawn(footage, "forward"), 0.0
    found = fit_terms(atlas, sample, flow_ways="forward")
    for t, x, y in pixels_of(sample):
        there = along(footage, t, x, y, 1)
        if there is not None:
            here, other = seen(atlas, t, x, y), seen(atlas, *there)
            share = here.opacity.item(), 1 - here.opacity.item()
            total += sum(share[i] * (here.place[i] - other.place[i]).norm().item() for i in (0, 1)) / N
    assert found["flow"].item() == pytest.approx(total, rel=2e-5)
    cover = list(atlas.cover.parameters())
    assert set(torch.autograd.grad(found["flow"], cover, allow_unused=True)) == {None}
    both = fit_terms(atlas, drawn(footage, "both"), flow_ways="both")["flow"]
    assert any(x.abs().max() > 0 for x in torch.autograd.grad(both, cover))


def test_no_pixel_whose_flow_is_trusted_is_no_term(atlas, footage):
    none = replace(footage, trusted=0 * footage.trusted, back_trusted=0 * footage.back_trusted)
    terms = fit_terms(atlas, drawn(none, "both"), flow_ways="both")
    assert terms["flow"] == terms["cover_flow"] == 0


def test_the_flow_back_is_that_from_each_frame_to_the_one_before(footage):
    flow = load_flow()
    frames = [footage.frames[t].copy() for t in range(T)]
    for t in range(1, T):
        back, forth = flow(frames[t], frames[t - 1]), flow(frames[t - 1], frames[t])
        assert (footage.back[t - 1] == back).all()
        sure = agreement(torch.from_numpy(back), torch.from_numpy(forth)).numpy()
        assert (footage.back_trusted[t - 1] == sure).all()


def test_the_networks_are_the_published_ones(atlas):
    shape = PUBLISHED["shape"]
    real = LayeredAtlas(torch.eye(2, 3).expand(2, 2, 2, 3), (432, 768), shape, generator=chance())
    sizes = [[tuple(layer.weight.shape) for layer in net if hasattr(layer, "weight")] for net in real.maps]
    assert sizes[0] == [(256, 3), *[(256, 256)] * 4, (2, 256)]
    assert sizes[1] == [(256, 3), *[(256, 256)] * 2, (2, 256)]
    # 40 waves there, and here the place besides
    paint = [layer.weight.shape[1] for layer in real.paints[0] if hasattr(layer, "weight")]
    assert paint == [42, 256, 256, 256, 256 + 42, 256, 256, 256 + 42]
    # the same by hand, at a size that shows a wrong layer
    x = torch.rand(5, 2, generator=chance(1), dtype=torch.float64)
    given = h = encode(x, 3, longest=4.0)
    assert torch.allclose(given[:, 2:8:3], (torch.pi / 2 * x).sin(), atol=1e-6)
    for number, layer in enumerate(layer for layer in atlas.paints[1] if hasattr(layer, "weight")):
        h = torch.relu(h) if number else h
        h = layer(torch.cat([h, given], 1) if number in SHAPE.skips else h)
    assert torch.allclose(atlas.colour(1, x), h.sigmoid(), atol=1e-12)
    for skips in ((0,), (4,)):
        with pytest.raises(ValueError, match="skips must be numbers of layers after the first, 1 to 3"):
            replace(SHAPE, skips=skips)


def test_weights_have_the_published_ratios_and_schedules_are_shares_of_the_steps(footage):
    real = AtlasFitConfig.of_size((432, 768))
    ratios = {"flow": 0.001, "cover_flow": 0.0098, "rigidity": 0.0002, "sparsity": 0.2, "bootstrap": 0.4}
    ratios |= {"colour": 1.0, "gradient": 0.2, "global_rigidity": 0.001, "global_rigidity_ground": 0.01}
    for name, value in ratios.items():
        assert getattr(real, name) == pytest.approx(value), name
    assert (real.steps, real.samples, real.learning_rate) == (400_000, 10_000, 1e-4)
    assert (real.bootstrapped * real.steps, real.globally_rigid * real.steps) == (10_000, 5_000)
    assert real.global_distance == 100
    run = AtlasFit(footage, config=CONFIG, generator=chance())
    weights = []
    for _ in range(4):
        weights.append([run._weight("bootstrap"), run._weight("global_rigidity"), run._learning_rate()])
        run.step()
    # of 80 steps: two with masks, one with global rigidity
    assert weights == [[0.4, 0.001, 1e-4], [0.4, 0.0, 1e-4], [0.0, 0.0, 1e-4], [0.0, 0.0, 1e-4]]


def test_global_rigidity_is_in_the_history_and_costs_nothing_once_it_is_over(footage, monkeypatch):
    run, asked = AtlasFit(footage, config=CONFIG, generator=chance()), []
    place = LayeredAtlas.place
    monkeypatch.setattr(
        LayeredAtlas, "place", lambda self, layer, points: asked.append(layer) or place(self, layer, points)
    )
    for _ in range(2):
        run.step()
    assert run.terms[-2:] == ("global_rigidity", "global_rigidity_ground")
    assert (run.history[0, -2:] > 0).all()
    assert not run.history[1, -2:].any()
    assert len(asked) == (2 + 2 * 3) + 2


@pytest.mark.parametrize("name", ["schedule", "flow_ways", "bootstrap_schedule"])
def test_words_that_are_no_setting_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        AtlasFitConfig(**{name: "never"})
