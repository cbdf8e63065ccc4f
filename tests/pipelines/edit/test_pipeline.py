"""OIGPipeline loads what diffusers saves, of both kinds, with a LoRA, and does what oig_edit does."""

import pytest
import torch

from geokernels.models import load_text_to_image
from geokernels.pipelines import OIGPipeline, oig_edit

diffusers = pytest.importorskip("diffusers")

KINDS = ["StableDiffusionPipeline", "StableDiffusionXLPipeline"]


def chance():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_folder_and_of_a_pipeline(random_pipeline, single_encoder, kind, tmp_path):
    pipe = OIGPipeline.from_pretrained(random_pipeline(kind))
    pipe.save_pretrained(tmp_path)
    loaded = load_text_to_image(tmp_path)
    assert type(loaded).__name__ == kind
    wrapped = OIGPipeline.from_pipe(loaded)
    assert wrapped.unet is loaded.unet
    picture = torch.rand(1, 3, 64, 48, generator=chance())
    found = []
    for made in (pipe, wrapped):
        source = made.invert(picture, ["a"], steps=3)
        found.append(made(source, ["b"], single_encoder, output_type="pt", structure=0.5).images)
    # weights mapped from a file are aligned otherwise in memory, which changes the order of some sums
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)
    drawn = wrapped(wrapped.draw(["a"], steps=2, generator=chance()), ["b", "c"], single_encoder)
    assert [image.size for image in drawn.images] == [(64, 64)] * 2


def test_takes_part_in_what_is_loaded_into_it(random_pipeline, single_encoder):
    peft = pytest.importorskip("peft")
    pipe = OIGPipeline.from_pretrained(random_pipeline(KINDS[0]))
    source = pipe.draw(["a"], steps=2, generator=chance())
    plain = oig_edit(pipe.inner, single_encoder, source, ["b"]).history
    torch.manual_seed(0)
    pipe.unet.add_adapter(
        peft.LoraConfig(r=2, target_modules=["to_q", "conv2"], init_lora_weights=False), "style"
    )
    assert not torch.equal(oig_edit(pipe.inner, single_encoder, source, ["b"]).history, plain)


@pytest.mark.parametrize("kind", ["PixArtAlphaPipeline", "PixArtSigmaPipeline"])
def test_refuses_other_kinds(random_pipeline, kind):
    with pytest.raises(TypeError, match=f"pipeline must be a StableDiffusionPipeline, .*, got {kind}"):
        OIGPipeline.from_pipe(load_text_to_image(random_pipeline(kind)))
