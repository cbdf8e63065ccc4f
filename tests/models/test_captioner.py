"""A BLIP of chance is loaded from its folder and says something; what is none is refused."""

import pytest
import torch

from geokernels.models.captioner import load_captioner

transformers = pytest.importorskip("transformers")


def save_captioner(folder):
    """A tiny BLIP with twenty words."""
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *"abcdefghijklmn"]
    known = {word: i for i, word in enumerate(words)}
    tokenizer = transformers.BertTokenizer(vocab=known, bos_token="[DEC]")
    text = transformers.BlipTextConfig(
        vocab_size=len(words), hidden_size=8, encoder_hidden_size=8, intermediate_size=8, projection_dim=8,
        num_hidden_layers=1, num_attention_heads=2, bos_token_id=5, eos_token_id=3, pad_token_id=0,
        sep_token_id=3, max_position_embeddings=64,
    )  # fmt: skip
    vision = transformers.BlipVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    config = transformers.BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    model = transformers.BlipForConditionalGeneration(config)
    with torch.no_grad():  # so that letters are likelier than the end
        model.text_decoder.cls.predictions.decoder.bias[6:] += 5
    model.save_pretrained(folder)
    processor = transformers.BlipImageProcessor(size={"height": 16, "width": 16})
    transformers.BlipProcessor(processor, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_captioner(tmp_path_factory.mktemp("blip"))


def test_captions(folder):
    captioner = load_captioner(folder)
    pictures = torch.rand(2, 3, 20, 30)
    found = captioner(pictures)
    assert len(found) == 2
    assert all(set(text) <= set("abcdefghijklmn ") for text in found), found
    assert captioner(pictures) == found
    assert not any(p.requires_grad for p in captioner.model.parameters())


def test_refusals(tmp_path, pipeline_folder):
    with pytest.raises(ValueError, match="must be a whole BLIP saved as safetensors"):
        load_captioner(tmp_path)
    with pytest.raises(ValueError, match="it is a clip_text_model"):
        load_captioner(pipeline_folder / "text_encoder")
