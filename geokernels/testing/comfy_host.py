"""A stand-in for ComfyUI: its modules as far as nodes use them, and how it loads, checks and runs these.

It is stricter than ComfyUI where that is cheap: a name that is not in the interface of V3 (``latest`` of
``comfy_api``) is an error here, and so is an input that ``execute`` does not take under its own name.
Nodes run as they do there: as classes that cannot be written to, under inference mode, once for each item of
the lists that come in, with links, widgets' limits and types checked before.
"""

import asyncio
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch


class _Socket:
    """An input or an output of one of ComfyUI's types."""

    kind = "*"
    widget = False


@dataclass
class _Input(_Socket):
    id: str
    display_name: str | None = None
    optional: bool = False
    tooltip: str | None = None
    lazy: bool | None = None

    def accept(self, value):
        """What ``execute`` gets of a value; raises where ComfyUI would refuse it."""
        return value


@dataclass
class _Output(_Socket):
    id: str | None = None
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False


@dataclass
class _Widget(_Input):
    default: object = None
    widget = True

    def __post_init__(self):
        if self.default is not None:
            self.accept(self.default)


@dataclass
class _Number(_Widget):
    min: float | None = None
    max: float | None = None
    step: float | None = None
    of = float

    def accept(self, value):
        value = self.of(value)
        if self.min is not None and value < self.min:
            raise ValueError(f"{self.id}: Value {value} smaller than min of {self.min}")
        if self.max is not None and value > self.max:
            raise ValueError(f"{self.id}: Value {value} bigger than max of {self.max}")
        return value


@dataclass
class _Int(_Number):
    control_after_generate: bool | None = None
    of = int


@dataclass
class _Float(_Number):
    round: float | None = None


@dataclass
class _String(_Widget):
    multiline: bool = False
    placeholder: str | None = None
    dynamic_prompts: bool | None = None

    def accept(self, value):
        return str(value)


@dataclass
class _Combo(_Widget):
    options: list[str] = field(default_factory=list)

    def accept(self, value):
        if value not in self.options:
            raise ValueError(f"{self.id}: {value!r} not in {self.options}")
        return value


def _kind(name: str, given: type = _Input) -> type:
    class Kind:
        Input = type("Input", (given,), {"kind": name})
        Output = type("Output", (_Output,), {"kind": name})

    return Kind


@dataclass
class Schema:
    """What a node says of itself."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    hidden: list = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def validate(self) -> None:
        """Ids are unique, among inputs and outputs together."""
        outputs = [out.id or f"_{i}_{out.kind}_" for i, out in enumerate(self.outputs)]
        ids = [given.id for given in self.inputs] + outputs
        if len(set(ids)) != len(ids):
            raise ValueError(f"ids of {self.node_id} must be unique, got {ids}")

    @property
    def ordered(self) -> list:
        """Inputs as the page shows them: the optional ones are last."""
        return sorted(self.inputs, key=lambda given: given.optional)


class NodeOutput:
    """What a node returns."""

    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui = args, ui


class _Locked(type):
    def __setattr__(cls, name, value):
        if "_locked" in vars(cls):
            raise AttributeError(f"nodes have no state, {cls.__name__}.{name} cannot be set")
        super().__setattr__(name, value)


class ComfyNode(metaclass=_Locked):
    """What nodes are made of."""


class ComfyExtension:
    """What an entry point returns."""

    async def on_load(self) -> None:
        """Called first."""


class InterruptedByUserError(Exception):
    """The user has cancelled."""


class ProgressBar:
    """Of ``comfy.utils``: where ComfyUI looks whether the user has cancelled."""

    made: list["ProgressBar"]  # all of a host, and when it is cancelled
    cancel_at: float

    def __init__(self, total, node_id=None):
        self.total, self.seen = total, []
        self.made.append(self)

    def update_absolute(self, value, total=None, preview=None):
        """Show ``value`` of ``total``."""
        self.seen.append(value)
        if value >= self.cancel_at:
            raise InterruptedByUserError


class ComfyHost:
    """A running ComfyUI with the nodes of one folder.

    Args:
        patch: pytest's ``monkeypatch``, which takes the modules away again.
        folder: What stands in ``custom_nodes``.

    Raises:
        TypeError: If the folder is not one of nodes of V3.
    """

    def __init__(self, patch, folder: Path):
        self.bar = type("ProgressBar", (ProgressBar,), {"made": [], "cancel_at": float("inf")})
        for name, held in self._modules().items():
            module = types.ModuleType(name)
            vars(module).update(held)
            patch.setitem(sys.modules, name, module)
        name = str(folder).replace(".", "_x_")
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        for loaded in [key for key in sys.modules if key.startswith(f"{name}.")]:
            patch.setitem(sys.modules, loaded, sys.modules.pop(loaded))  # goes away with the rest
        self.nodes = asyncio.run(self._nodes_of(module))
        self.schemas = {node_id: node.define_schema() for node_id, node in self.nodes.items()}

    def _modules(self) -> dict[str, dict]:
        io = types.SimpleNamespace(ComfyNode=ComfyNode, Schema=Schema, NodeOutput=NodeOutput)
        for name in ("Conditioning", "Image", "Mask", "Clip", "Latent", "Model", "Vae"):
            setattr(io, name, _kind(name.upper()))
        for name, given in (("Int", _Int), ("Float", _Float), ("String", _String), ("Combo", _Combo)):
            setattr(io, name, _kind(name.upper(), given))
        utils = types.SimpleNamespace(ProgressBar=self.bar)
        return {
            "comfy": {"utils": utils},
            "comfy.utils": vars(utils),
            "comfy_api": {},
            "comfy_api.latest": {"io": io, "ComfyExtension": ComfyExtension},
        }

    @staticmethod
    async def _nodes_of(module) -> dict[str, type]:
        extension = await module.comfy_entrypoint()
        if not isinstance(extension, ComfyExtension):
            raise TypeError(f"comfy_entrypoint must return a ComfyExtension, got {type(extension).__name__}")
        await extension.on_load()
        nodes = {}
        for node in await extension.get_node_list():
            schema = node.define_schema()
            schema.validate()
            _require_same_names(node, schema)
            nodes[schema.node_id] = node
        return nodes

    def run(self, node_id: str, **inputs) -> tuple:
        """One run of a node: what comes out of each of its sockets, once or as a list.

        Raises:
            ValueError: If inputs do not fit the node's schema, as ComfyUI would say; or what the node raises.
        """
        results = self.run_lists(node_id, {name: [value] for name, value in inputs.items()})
        outputs = self.schemas[node_id].outputs
        return tuple(held if out.is_output_list else held[0] for out, held in zip(outputs, results))

    def run_lists(self, node_id: str, inputs: Mapping[str, list]) -> list[list]:
        """Run a node for each item of the lists that come in; what comes out of each socket."""
        node, schema = self.nodes[node_id], self.schemas[node_id]
        given = {socket.id: socket for socket in schema.inputs}
        for name in inputs:
            if name not in given:
                raise ValueError(f"{node_id} has no input {name!r}, it has {', '.join(given)}")
        accepted = {name: [given[name].accept(v) for v in values] for name, values in inputs.items()}
        for name, socket in given.items():
            if name not in inputs and not socket.optional:
                raise ValueError(f"Required input is missing: {name} of {node_id}")
        clone = type(node.__name__, (node,), {"_locked": True})
        if schema.is_input_list:
            calls = [accepted]
        else:
            longest = max(map(len, accepted.values()))
            calls = [{k: v[min(i, len(v) - 1)] for k, v in accepted.items()} for i in range(longest)]
        collected: list[list] = [[] for _ in schema.outputs]
        for call in calls:
            with torch.inference_mode():
                found = clone.execute(**call)
            if not isinstance(found, NodeOutput) or len(found.args) != len(schema.outputs):
                raise TypeError(f"{node_id} must return NodeOutput of {len(schema.outputs)}, got {found}")
            for out, value, held in zip(schema.outputs, found.args, collected):
                if out.is_output_list and not isinstance(value, list):
                    raise TypeError(f"{node_id} must return a list, got {type(value).__name__}")
                held.extend(value if out.is_output_list else [value])
        return collected

    def run_workflow(self, workflow: Mapping, others: Mapping[str, Callable]) -> dict[int, list[list]]:
        """Run a workflow as a file has it (format 0.4), node by node.

        Args:
            workflow: As read from the file.
            others: ComfyUI's own nodes, by type: functions of widgets' values and of inputs by name, once
                for each item of a list, that return a tuple of outputs; those with ``takes_lists`` get whole
                lists and return lists.

        Returns:
            What came out of each node's sockets, by the node's id.
        """
        sources = {link[0]: (link[1], link[2]) for link in workflow["links"]}
        made: dict[int, list[list]] = {}
        for node in sorted(workflow["nodes"], key=lambda node: node["order"]):
            linked = {
                socket["name"]: made[sources[socket["link"]][0]][sources[socket["link"]][1]]
                for socket in node.get("inputs", [])
                if socket.get("link") is not None
            }
            if node["type"] in self.nodes:
                widgets = [i for i in self.schemas[node["type"]].ordered if i.widget]
                values = zip(widgets, node["widgets_values"], strict=True)
                own = {widget.id: [value] for widget, value in values if widget.id not in linked}
                made[node["id"]] = self.run_lists(node["type"], {**own, **linked})
                continue
            function, widgets = others[node["type"]], node.get("widgets_values", [])
            if getattr(function, "takes_lists", False):
                made[node["id"]] = list(function(*widgets, **linked))
                continue
            times = max(map(len, linked.values()), default=1)
            calls = [
                function(*widgets, **{k: v[min(i, len(v) - 1)] for k, v in linked.items()})
                for i in range(times)
            ]
            made[node["id"]] = [list(outputs) for outputs in zip(*calls)]
        return made


def _require_same_names(node: type, schema: Schema) -> None:
    """Inputs come by name; those that may be left out need a default."""
    if not isinstance(inspect.getattr_static(node, "execute"), classmethod):
        raise TypeError(f"execute of {schema.node_id} must be a classmethod")
    taken = inspect.signature(node.execute).parameters
    if {*taken} != {given.id for given in schema.inputs}:
        raise TypeError(f"execute of {schema.node_id} must take its inputs by name, got {', '.join(taken)}")
    for given in schema.inputs:
        if given.optional and taken[given.id].default is inspect.Parameter.empty:
            raise TypeError(f"{given.id} of {schema.node_id} is optional, and needs a default")
