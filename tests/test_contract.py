"""Names, argument order and defaults that other programs rely on stay as they are."""

import inspect

import pytest

import geokernels as gk
from geokernels import distributed, pipelines

LIMITS = "lengths=None, reach=None, max_iter=1000, tol=1e-05"
CLOUDS = f"x, y, a=None, b=None, *, eps, cost='sqeuclidean', p=2.0, {LIMITS}"
OPERATORS = {
    "subspace_basis": "x, rank=None, *, center='none', rtol=None, backend=None",
    "project": "x, basis, *, backend=None",
    "principal_angles": "p, q, *, backend=None",
    "geodesic_flow": "p, q, *, backend=None",
    "geodesic_cosine": "x, y, p, q, *, eps=1e-12, backend=None",
    "geodesic_cosine_along": "x, y, flow, *, eps=1e-12, backend=None",
    "sinkhorn": f"{CLOUDS}, init=None, anneal=None, backend=None, precision=None",
    "sinkhorn_from_cost": f"cost, a=None, b=None, *, eps, {LIMITS}, init=None, anneal=None, backend=None",
    "sinkhorn_divergence": f"{CLOUDS}, anneal=None, backend=None, precision=None",
    "assignment": "cost, *, backend=None",
    "exact_transport": "cost, a=None, b=None, *, backend=None",
    "match_points": (
        "x, y, at_x, at_y, *, eps, reach, a=None, b=None, cost='cosine', position_weight=0.0, sigma=None, "
        "max_iter=1000, tol=1e-05, backend=None"
    ),
    "displacement": "x, y, t, *, plan='exact', eps=None, backend=None",
    "directional_loss": "current, source, text_source, text_target, *, eps=1e-06",
    "geodesic_consistency_loss": (
        "current, source, text_source, text_target, *, text_basis=None, rank=None, text_rank=None, "
        "through_bases=True, eps=1e-06, backend=None"
    ),
    "geodesic_regularisation_loss": "current, previous, *, rank=None, through_bases=True, backend=None",
}
SETTINGS = "eps, cost='sqeuclidean', p=2.0, reach=None, max_iter=1000, tol=1e-05"
SPREAD = "backend=None, precision=None, memory=1073741824, timeout=600.0, group=None"
DISTRIBUTED = {
    "sinkhorn": f"x_rows, y_rows, a=None, b=None, *, {SETTINGS}, init=None, anneal=None, {SPREAD}",
    "sinkhorn_divergence": f"x_rows, y_rows, a=None, b=None, *, {SETTINGS}, anneal=None, {SPREAD}",
}
PARTS = {
    "SubspaceBasis": ("basis", "values"),
    "GeodesicFlow": ("start", "turn", "angles", "at", "kernel"),
    "Transport": (
        *("value", "f", "g", "error", "iterations", "converged"),
        *("plan", "apply", "apply_t", "barycentric"),
    ),
    "Match": ("map", "confidence", "cycle_error"),
    "ExactTransport": ("rows", "columns", "mass", "f", "g", "value", "plan"),
}
METHODS = {
    "blend_pictures": "first, second",
    "clip_inversion": "picture, encoders, source, target",
    "adapt_generator": "model, encoders, source, target",
    "edit_layer": "picture, encoders, source, target",
    "edit_video": "footage, atlas, encoders, source, target",
    "interpolate_prompts": "pipeline, prompts",
    "oig_edit": "pipeline, encoder, source, targets",
}
INVERSIONS = {
    "ddim_inversion": "pipeline, pictures, captions, *, steps=50, skip=1",
    "flow_inversion": "pipeline, pictures, captions, *, steps=28, solver='midpoint'",
}


def signature(function) -> str:
    """Names, kinds and defaults, without annotations."""
    found = inspect.signature(function)
    bare = [part.replace(annotation=inspect.Parameter.empty) for part in found.parameters.values()]
    return str(inspect.Signature(bare))[1:-1]


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_and_losses(name):
    assert signature(getattr(gk, name)) == OPERATORS[name]


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_operators_on_rows_of_ranks(name):
    assert signature(getattr(distributed, name)) == DISTRIBUTED[name]
    assert {*distributed.__all__} == {*DISTRIBUTED, "ShardedTransport", "RankError"}
    assert {*dir(distributed.ShardedTransport)} >= {"apply", "apply_t", "barycentric", "converged"}


@pytest.mark.parametrize("name", PARTS)
def test_results(name):
    kind = getattr(gk, name)
    there = {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}
    assert there.issuperset(PARTS[name])


def test_nothing_else_is_public():
    assert {*gk.__all__} == {*OPERATORS, *PARTS, "BackendError"}


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    function = getattr(pipelines, name)
    positional, _, keywords = signature(function).partition(", *, ")
    assert positional == METHODS[name]
    # settings and progress by name; both may be left out
    assert "config=None" in keywords
    assert "callback=None" in keywords


def test_what_a_blend_may_be_given():
    given = "config=None, fixed=None, maps=None, encoder=None, masks=None, model=None, texts=None"
    assert signature(pipelines.blend_pictures) == f"first, second, *, {given}, callback=None"
    assert signature(pipelines.find_maps).endswith("encoder=None, fixed=None, masks=None, progress=None")


@pytest.mark.parametrize("name", INVERSIONS)
def test_inversions(name):
    assert signature(getattr(pipelines, name)).startswith(f"{INVERSIONS[name]}, callback=")


@pytest.mark.parametrize("name", ["OIGPipeline", "PromptInterpolationPipeline"])
def test_pipelines_of_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    kind = getattr(pipelines, name)
    assert issubclass(kind, diffusers.DiffusionPipeline)
    assert callable(kind.from_pretrained)
    assert callable(kind.from_pipe)


def test_block_of_diffusers():
    pytest.importorskip("diffusers")
    block = pipelines.PromptTransportStep()
    given = {param.name: param.default for param in block.inputs if not param.name.endswith("_embeds")}
    assert given == {
        **dict.fromkeys(["prompt", "times", "coupling_generator", "generator", "latents"]),
        **{"frames": 9, "coupling": "ot", "rows": "all", "eps": 0.05},
    }
    assert {param.name for param in block.intermediate_outputs} == {
        *("prompt_embeds", "pooled_prompt_embeds"),
        *("negative_prompt_embeds", "negative_pooled_prompt_embeds"),
    }


def test_commands():
    from geokernels.cli import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    assert commands | groups == {
        *("demo", "blend", "morph", "adapt", "video", "interpolate"),
        *("edit", "eval", "batch", "merge", "rerun", "ui", "bench", "tune", "world", "doctor"),
    }
