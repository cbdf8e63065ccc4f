"""What holds for every test: uninitialised memory is NaN, chance is seeded; a pipeline to draw with.

``pytest --device cuda tests/ops`` holds the operators to the same tests on a GPU: tensors are made there
unless a test says otherwise. What a backend cannot do there is skipped with its reason.
"""

import os
import signal
import string

import pytest
import torch

# Triton runs on the GPU where there is one, else in its interpreter, which is chosen before it is imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser):
    parser.addoption("--device", choices=["cpu", "cuda"], default="cpu", help="Where operators are tested.")
    parser.addoption("--long", action="store_true", help="Run what takes minutes too.")


def pytest_configure(config):
    # the tests of the definitions need no library
    config.addinivalue_line("filterwarnings", "ignore:geokernels runs its definitions:RuntimeWarning")
    # those who share out the tests say how wide their own terminal is
    os.environ.pop("COLUMNS", None)
    # a shell that starts the tests in the background has Ctrl-C ignored, by them and by what they start
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--device") == "cpu":
        return
    if not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda needs a GPU, torch sees none")
    torch.set_default_device("cuda")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: pytest --long"))
    if config.getoption("--device") == "cpu":
        return
    for item in items:
        if item.get_closest_marker("cpu"):
            item.add_marker(pytest.mark.skip(reason="holds on the CPU alone"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    from geokernels.kernels.dispatch import BackendError

    try:
        return (yield)
    except BackendError as error:
        if pyfuncitem.config.getoption("--device") == "cpu":
            raise
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def poison_uninitialised_memory():
    """Fill torch.empty with NaN, so that a kernel that skips an output element cannot pass by luck."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="session")
def interpreter_drops_nan():
    """Let Triton's interpreter drop NaN where a GPU does: in the minimum and maximum of two, of one NaN."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    numpy, interpreter = (pytest.importorskip(name) for name in ("numpy", "triton.runtime.interpreter"))
    builder, reduction = interpreter.InterpreterBuilder, interpreter.ReduceOps

    def of_two(ours):
        return lambda self, lhs, rhs: self.binary_op(lhs, rhs, ours)

    def reduced(self, input, val_reduce_op, idx_reduce_op=None):
        along = {numpy.nanmin: numpy.fmin.reduce, numpy.nanmax: numpy.fmax.reduce}
        return min_max(self, input, along.get(val_reduce_op, val_reduce_op), idx_reduce_op)

    min_max = reduction.min_max
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "create_minnumf", of_two(numpy.fmin))
        patch.setattr(builder, "create_maxnumf", of_two(numpy.fmax))
        # numpy's own warns of nothing but NaN
        patch.setattr(reduction, "min_max", reduced)
        yield


@pytest.fixture
def simd_level():
    """Set the SIMD level inside a test; the widest is back afterwards."""
    from geokernels.kernels import native

    yield native.set_simd_level
    if not native.missing:
        native.set_simd_level(native.build_info()["simd_levels"][-1])


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """A random Stable Diffusion pipeline for 64 x 64 pictures that reads any lower-case text, in a folder."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        sample_size=64,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
    )
    letters = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase)]
    words = {token: i for i, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    text = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=len(letters),
        eos_token_id=len(letters) + 1,
        pad_token_id=len(letters) + 1,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae.eval(),
        unet=unet.eval(),
        text_encoder=transformers.CLIPTextModel(text).eval(),
        tokenizer=transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=77),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_pipeline(tmp_path_factory):
    """The folder of a random pipeline of a class of diffusers, saved once a session."""
    pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    from geokernels.testing.pipelines import save_random_pipeline

    saved = {}

    def folder(kind: str):
        if kind not in saved:
            saved[kind] = save_random_pipeline(kind, tmp_path_factory.mktemp("random") / kind)
        return saved[kind]

    return folder


@pytest.fixture
def tiny_vit():
    """A CLIP of open_clip's own make with a small vision transformer of random weights, 32 pixels wide."""
    open_clip = pytest.importorskip("open_clip")
    from geokernels.models.clip import ClipEncoder

    sizes = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    words = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=12, vision_cfg=sizes, text_cfg=words)
    model.visual.preprocess_cfg = {
        **{"size": 32, "mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28)},
        **{"interpolation": "bicubic", "resize_mode": "shortest"},
    }
    return ClipEncoder("tiny ViT", model, open_clip.get_tokenizer("ViT-B-32"))
