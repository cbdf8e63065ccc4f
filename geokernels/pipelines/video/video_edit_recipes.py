"""The settings of edits of atlases by recipe: what Text2LIVE's authors released, and ours for the world."""

from types import MappingProxyType

from ..morph import text2live_recipes

# configs/video_config.yaml in github.com/omerbt/Text2LIVE, and what its code says besides; the rest is as for
# pictures. Frames are 768 x 432 there, and their windows are not scaled.
PUBLISHED = MappingProxyType(
    {
        **text2live_recipes.PUBLISHED,
        "steps": 3000,
        "decay": 0.999,
        "structure": 3.0,
        "sparsity": 0.1,
        "sparsity_count": 0.005,
        "sparsity_amount": 0.01,
        "bootstrap": 0.0,
        "views": 6,
        "screen_views": 6,
        "fill": 0.0,
        "moments": 3,
        "apart": 2,
        "border": 30,
        "crop": (0.95, 1.0),
        "zoom": (1.0, 1.0),
        "short_side": 432,
    }
)
GROUND_CROP = (0.8, 1.0)  # published for backgrounds, in place of "crop"

WORLD = MappingProxyType(
    {**text2live_recipes.WORLD, "bootstrap": 0.0, "moments": 1, "apart": 2, "border": None}
)
