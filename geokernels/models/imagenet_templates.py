"""The sentences that StyleGAN-NADA averages a text over: 79 of those by which CLIP named ImageNet's classes.

CLIP's authors published 80 (openai/CLIP, ``notebooks/Prompt_Engineering_for_ImageNet.ipynb``, MIT licence).
StyleGAN-NADA has all but "a photo of many {}." (rinongal/StyleGAN-nada, ``ZSSGAN/utils/text_templates.py``,
MIT licence). But for three, each comes with "a" and with "the".
"""

KINDS = (
    *("art", "graffiti", "itap", "a doodle", "a drawing", "a painting", "a rendering", "a rendition"),
    *("a sculpture", "a sketch", "a tattoo", "a photo", "a bad photo", "a black and white photo"),
    *("a blurry photo", "a bright photo", "a close-up photo", "a cropped photo", "a dark photo"),
    *("a good photo", "a jpeg corrupted photo", "a low resolution photo", "a pixelated photo"),
)
LOOKS = ("clean", "cool", "dirty", "hard to see", "large", "nice", "small", "weird")
MADE = ("cartoon", "embroidered", "origami", "plastic", "plushie", "toy")

IMAGENET_TEMPLATES = (
    *(f"{kind} of {article} {{}}." for kind in KINDS for article in ("a", "the")),
    *(f"a photo of {article} {look} {{}}." for look in LOOKS for article in ("a", "the")),
    *(f"{article} {made} {{}}." for made in MADE for article in ("a", "the")),
    *("a {} in a video game.", "the {} in a video game."),
    *("a photo of my {}.", "a photo of one {}.", "itap of my {}."),
)
