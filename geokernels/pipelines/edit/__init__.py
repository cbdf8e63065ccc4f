"""A picture is edited on its way out of noise: OIG."""
