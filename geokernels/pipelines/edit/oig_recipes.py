"""What of an OIG edit depends on the recipe."""

from types import MappingProxyType

# Lee et al., WACV 2025, and the code released with it, for Stable Diffusion 1.4 at 512 pixels and 50 steps
PUBLISHED = MappingProxyType(
    {
        "structure": 1.0,  # 0.5 and 1.5 were published as well
        "gradient": "released",
        "negative": "source",
        "cycle_steps": None,
        "anchored": False,
    }
)

# chosen on 30 edits of the rendered world, twice, and the cycle's steps on eight; benchmarks/NOTES.md
WORLD = MappingProxyType(
    {"structure": 0.1, "gradient": "exact", "negative": "empty", "cycle_steps": 4, "anchored": False}
)

# ours, of the world's until they are chosen on a rectified flow: nobody has published OIG on one
FLOW = MappingProxyType({**WORLD, "anchored": True})
