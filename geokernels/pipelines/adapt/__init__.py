"""A StyleGAN2 is moved from one text to another: StyleGAN-NADA."""
