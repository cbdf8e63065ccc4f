"""A picture is moved from one text to another: CLIP inversion, and Text2LIVE's layer."""
