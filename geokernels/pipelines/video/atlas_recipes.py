"""Settings of a fit of an atlas: as published for real footage, and as chosen on the rendered world."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...models.atlas import AtlasShape
from .atlas_sample import BOTH, FORWARD

# chosen on rendered clips of 64 pixels (docs/video.md)
WORLD: Mapping[str, Any] = MappingProxyType(
    {
        "steps": 1200,
        "samples": 768,
        "learning_rate": 4e-3,
        "schedule": "cosine",
        "flow": 0.01,
        "cover_flow": 0.02,
        "flow_ways": FORWARD,
        "rigidity": 0.002,
        "global_rigidity": 0.0,
        "global_rigidity_ground": 0.0,
        "sparsity": 0.02,
        "bootstrap": 0.2,
        "bootstrap_schedule": "linear",
        "bootstrapped": 0.5,
        "shape": AtlasShape(),
    }
)

# Kasten et al. 2021, config/config.json of ykasten/layered-neural-atlases: weights are divided by that of the
# colours, 5000, and numbers of steps by all of them, 400,000
PUBLISHED: Mapping[str, Any] = MappingProxyType(
    {
        "steps": 400_000,
        "samples": 10_000,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "flow": 5 / 5000,
        "cover_flow": 49 / 5000,
        "flow_ways": BOTH,
        "rigidity": 1 / 5000,
        "global_rigidity": 5 / 5000,
        "global_rigidity_ground": 50 / 5000,
        "sparsity": 1000 / 5000,
        "bootstrap": 2000 / 5000,
        "bootstrap_schedule": "step",
        "bootstrapped": 10_000 / 400_000,
        # layers are counted there with the output among them: 6 and 4 of the maps, 8 of the rest. The colours
        # of half a place plus or minus a half are encoded there, which are waves twice as long
        "shape": AtlasShape(
            width=256,
            map_layers=5,
            ground_layers=3,
            layers=7,
            skips=(4, 7),
            octaves=10,
            wavelength=4.0,
            plain_octaves=5,
            scale=0.8,
        ),
    }
)
