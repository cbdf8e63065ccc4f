"""A generator is moved from one text to another: StyleGAN-NADA."""
