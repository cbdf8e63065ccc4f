"""load_clip gives open_clip's own features, with gradients to the picture and sentences for errors."""

import builtins
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from geokernels.models import load_clip
from geokernels.models.imagenet_templates import IMAGENET_TEMPLATES
from geokernels.pipelines import ClipInversion, ClipInversionConfig

open_clip = pytest.importorskip("open_clip")
# torch's fused attention warns once about its own internals on some builds
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", params=["ViT-B-32", "RN50"])
def real(request, tmp_path_factory):
    """A randomly initialised real architecture, saved as its users save it."""
    torch.manual_seed(0)
    model = open_clip.create_model(request.param).eval()
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return request.param, model, path


@pytest.fixture(scope="module")
def world():
    return load_clip("world")


@pytest.fixture(scope="module")
def witness():
    return load_clip("world-evaluation")


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures, so that resampling has something to preserve."""
    coarse = torch.rand((shape[0], 3, 12, 12), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")


def test_unclamped_pictures_are_seen_as_stylegan_nada_shows_them(world):
    """From [-1, 1] to [0, 1], resized by bicubic interpolation, its overshoot and the network's kept."""
    transforms = pytest.importorskip("torchvision.transforms.v2")
    side = world.image_size
    chance = torch.Generator().manual_seed(3)
    drawn = 1.6 * torch.randn(2, 3, side + 37, side + 90, generator=chance, dtype=torch.float64)
    shown = transforms.Compose(
        [
            transforms.Normalize([-1.0] * 3, [2.0] * 3),
            transforms.Resize(side, transforms.InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(side),
        ]
    )(drawn)
    seen = world.preprocess((drawn + 1) / 2, clamp=False) * world._std + world._mean
    torch.testing.assert_close(seen.double(), shown, rtol=0, atol=1e-5)
    assert shown.min() < -0.2
    clamped = world.preprocess((drawn + 1) / 2) * world._std + world._mean
    assert clamped.min() > -1e-6


def test_features_are_those_of_open_clip(real):
    name, model, path = real
    encoder = load_clip(name, path)
    _, _, preprocess = open_clip.create_model_and_transforms(name)
    exact, resized = pictures(1, 224, 224), pictures(1, 300, 401, seed=1)
    for batch, tolerance in [(exact, 1e-5), (resized, 2e-2)]:
        # PIL rounds to eight bits, before and after it resizes: give both the same rounding at the start
        levels = (batch[0] * 255).round()
        seen = preprocess(Image.fromarray(levels.byte().permute(1, 2, 0).numpy()))[None]
        with torch.no_grad():
            theirs = model.encode_image(seen, normalize=True)
            ours = encoder.encode_image(levels[None] / 255)
        assert (ours - theirs).norm() < tolerance

    prompts = ["a photo of a cat", "a drawing of a red circle"]
    theirs = model.encode_text(open_clip.get_tokenizer(name)(prompts), normalize=True)
    torch.testing.assert_close(encoder.encode_text(prompts)[:, 0], theirs.detach(), rtol=0, atol=1e-5)
    assert encoder.unknown_words("a photo of a cat") == []


def test_pt_file_loads_like_safetensors(real, tmp_path):
    name, model, path = real
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pt")
    x = pictures(1, 224, 224)
    assert torch.equal(
        load_clip(name, tmp_path / "model.pt").encode_image(x), load_clip(name, path).encode_image(x)
    )


def test_only_the_picture_has_a_gradient(world):
    x = pictures(2, 64, 64).requires_grad_()
    world.encode_image(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in world.parameters())
    world.train()
    assert not any(module.training for module in world.modules())


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (96, 200), (31, 50), (512, 512)])
def test_any_size_is_accepted(world, size):
    x = pictures(2, *size).requires_grad_()
    seen = world.preprocess(x)
    assert seen.shape == (2, 3, 64, 64)
    seen.square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_gradient_by_finite_differences():
    x, direction = pictures(1, 80, 80).double(), pictures(1, 80, 80, seed=1).double() - 0.5
    world = load_clip().double()
    target = world.encode_text(["a red circle"])[0, 0].double()

    def score(step):
        moved = x + step * direction
        # in float64 throughout: encode_image rounds to float32, which finite differences cannot bear
        size = torch.nn.functional.interpolate(moved, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
        features = world.model.encode_image((size - world._mean) / world._std)
        return torch.nn.functional.normalize(features, dim=-1)[0] @ target

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(score(step), step)
    finite = (score(torch.tensor(1e-6)) - score(torch.tensor(-1e-6))) / 2e-6
    torch.testing.assert_close(slope, finite, rtol=1e-3, atol=1e-5)


def test_features_are_unit_rows(world):
    torch.testing.assert_close(world.encode_image(pictures(3, 64, 64)).norm(dim=1), torch.ones(3))
    text = world.encode_text(["a red circle", "a star"], ["{}", "a picture of {}", "there is {}"])
    assert text.shape == (2, 3, world.dim)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2, 3))


def test_text_is_encoded_once(monkeypatch):
    encoder = load_clip("world")
    first = encoder.encode_text(["a red circle"], ["{}", "a photo of {}"])
    monkeypatch.setattr(encoder.model, "encode_text", lambda *_: pytest.fail("encoded again"))
    assert torch.equal(first, encoder.encode_text(["a red circle"], ["{}", "a photo of {}"]))
    assert torch.equal(first[:, 1:], encoder.encode_text(["a red circle"], ["a photo of {}"]))


def test_intermediate_features_reach_the_picture(world):
    x = pictures(2, 64, 64).requires_grad_()
    stages = world.image_features(x)
    assert [stage.shape[-1] for stage in stages] == [16, 16, 8, 4, 2]
    sum(stage.square().mean() for stage in stages).backward()
    assert x.grad.abs().sum() > 0


def test_unknown_words_are_named(world):
    assert world.unknown_words("a large striped red circle on a blue background") == []
    assert world.unknown_words("A red cathedral, at dawn") == ["cathedral", "at", "dawn"]


class TestEvaluation:
    """The second embedded model judges what the first guided; it must not be able to guide itself."""

    @pytest.mark.parametrize("method", ["encode_image", "image_features"])
    def test_no_gradient_passes(self, witness, method):
        x = pictures(2, 64, 64).requires_grad_()
        with pytest.raises(ValueError, match=r"must not require a gradient of 'world-evaluation'"):
            getattr(witness, method)(x)
        with torch.no_grad():
            seen = getattr(witness, method)(x)[-1]
        assert torch.equal(getattr(witness, method)(x.detach())[-1], seen)

    @pytest.mark.parametrize("parametrisation", ["layer", "fourier"])
    def test_no_morph_is_guided(self, witness, world, parametrisation):
        config = ClipInversionConfig(steps=1, views=1, parametrisation=parametrisation)
        texts = "a red circle", "a blue circle"
        chance = torch.Generator().manual_seed(0)
        for encoders in ([witness], [world, witness]):
            with pytest.raises(ValueError, match=r"must be models that guide, got 'world-evaluation'"):
                ClipInversion(pictures(1, 64, 64)[0], encoders, *texts, config=config, generator=chance)

    def test_it_is_another_model(self, witness, world):
        assert type(witness.model.visual) is not type(world.model.visual)
        widths = [e.model.token_embedding.weight.shape[1] for e in (witness, world)]
        assert widths[0] != widths[1], "a text tower of its own"


class TestErrors:
    def test_long_prompt(self, world):
        with pytest.raises(ValueError, match=r"prompt must have at most 77 tokens, got 102"):
            world.encode_text(["red " * 100])

    def test_template_without_a_place(self, world):
        with pytest.raises(ValueError, match=r"template must contain \{\} once, got 'a photo'"):
            world.encode_text(["red"], ["a photo"])

    def test_a_single_string(self, world):
        with pytest.raises(TypeError, match="must be sequences of strings"):
            world.encode_text("a red circle")

    @pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (0, 3, 64, 64)])
    def test_pictures_of_another_shape(self, world, shape):
        with pytest.raises(ValueError, match=r"pictures must have shape \(B, 3, H, W\), got"):
            world.encode_image(torch.zeros(shape))

    def test_byte_pictures(self, world):
        with pytest.raises(TypeError, match=r"pictures must be float16, .* got torch.uint8"):
            world.encode_image(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))

    def test_unknown_architecture(self):
        with pytest.raises(ValueError, match="architecture of open_clip"):
            load_clip("ViT-B-33", "x.pt")

    def test_no_weights(self):
        with pytest.raises(ValueError, match=r"weights must name a file for 'RN50', got None"):
            load_clip("RN50")

    def test_no_such_file(self):
        with pytest.raises(FileNotFoundError, match=r"weights must be an existing file, found none at"):
            load_clip("RN50", "nowhere.safetensors")

    def test_a_link_into_a_cache_is_known_by_its_own_ending(self, tmp_path):
        (tmp_path / "4f1a").write_bytes(b"cut")
        (tmp_path / "model.safetensors").symlink_to(tmp_path / "4f1a")
        with pytest.raises(ValueError, match=r"model.safetensors could not be read"):
            load_clip("RN50", tmp_path / "model.safetensors")

    def test_another_format(self, tmp_path):
        (tmp_path / "model.onnx").write_bytes(b"onnx" * 100)
        with pytest.raises(
            ValueError, match=r"model.onnx could not be read .* save its state dict with safet"
        ):
            load_clip("RN50", tmp_path / "model.onnx")

    def test_a_hub_name_takes_no_file(self):
        with pytest.raises(ValueError, match=r"weights must be left out for .* local-dir:FOLDER"):
            load_clip("hf-hub:someone/something", "model.pt")

    def test_another_architecture_names_the_first_key(self, real):
        name, _, path = real
        other = {"ViT-B-32": "RN50", "RN50": "ViT-B-32"}[name]
        with pytest.raises(
            ValueError,
            match=rf"weights must fit .{other}., which has .* of shape .*; its sizes are those of {name}",
        ):
            load_clip(other, path)

    @pytest.mark.parametrize("ending", [".safetensors", ".pt"])
    def test_truncated_file(self, ending, tmp_path):
        whole = tmp_path / f"whole{ending}"
        state = {"x": torch.rand(1000)}
        save_file(state, whole) if ending == ".safetensors" else torch.save(state, whole)
        cut = tmp_path / f"cut{ending}"
        cut.write_bytes(whole.read_bytes()[:2000])
        with pytest.raises(ValueError, match=rf"cut{ending} could not be read .*; fetch it again"):
            load_clip("RN50", cut)

    def test_a_file_that_would_execute_code(self, tmp_path):
        marker = tmp_path / "executed"
        torch.save({"x": _Executes(marker)}, tmp_path / "model.pt")
        with pytest.raises(ValueError, match="tensors alone"):
            load_clip("RN50", tmp_path / "model.pt")
        assert not marker.exists()

    def test_open_clip_is_missing(self, monkeypatch):
        original = builtins.__import__

        def without(name, *args, **kwargs):
            if name == "open_clip":
                raise ImportError(name)
            return original(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ImportError, match=r'pip install "geokernels\[morph\]"'):
            load_clip()


class _Executes:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_the_imagenet_templates_are_clip_s_but_one():
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    theirs = {template("{}") for template in OPENAI_IMAGENET_TEMPLATES}
    assert len(theirs) == 80
    assert len(IMAGENET_TEMPLATES) == 79
    assert set(IMAGENET_TEMPLATES) == theirs - {"a photo of many {}."}
