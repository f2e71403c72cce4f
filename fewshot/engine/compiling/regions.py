"""Cuts a traced graph into regions, compiling those that are alike once: an inner loop's steps.

A compiler takes its time for each operation, and a graph of five inner steps has five of each.
Regions are alike where they do the same operations with tensors of the same shapes. That is read
off the graph: a learner need not say what changes from step to step, and a step that differs from
the others is compiled by itself.
"""

import operator
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fewshot.engine.compiling.torch_internals import internal

aten = torch.ops.aten
NUMBER = "fewshot_region"  # of a node's region, among what is noted about the node


def end_region() -> None:
    """Where a graph is being traced: end a region of it here. What follows is another.

    Under vmap it does nothing: in regions, a small Conv4's step took a fifth longer than as a
    whole.
    """
    mode = internal("torch.fx.experimental.proxy_tensor.get_proxy_mode")()
    transform = internal("torch._C._functorch.peek_interpreter_stack")
    if mode is None or transform() is not None:
        return
    nodes = list(mode.tracer.graph.nodes)
    number = next((node.meta[NUMBER] + 1 for node in reversed(nodes) if NUMBER in node.meta), 0)
    for node in reversed(nodes):
        if NUMBER in node.meta:
            break
        node.meta[NUMBER] = number


def compiled_by_region(
    graph: fx.GraphModule, compile: Callable[[fx.GraphModule], nn.Module]
) -> nn.Module:
    """The graph, compiled: region by region where some are alike, or else as a whole.

    Args:
        graph: traced by ``make_fx``, in regions by `end_region`.
        compile: compiles a graph.
    """
    _read_once(graph)
    regions = _regions(graph.graph)
    kinds = [region.kind for region in regions]
    if len(set(kinds)) == len(kinds):
        return compile(graph)
    return _composed(graph, _joined(regions, kinds), compile)


class Region(NamedTuple):
    """Successive operations of a graph."""

    nodes: list[fx.Node]

    @property
    def inputs(self) -> list[fx.Node]:
        """The values from outside, in the order of their use."""
        inside = set(self.nodes)
        return list(
            dict.fromkeys(n for node in self.nodes for n in node.all_input_nodes if n not in inside)
        )

    @property
    def results(self) -> list[fx.Node]:
        """The values that are used outside."""
        inside = set(self.nodes)
        return [node for node in self.nodes if any(user not in inside for user in node.users)]

    @property
    def kind(self) -> Hashable:
        """The same for regions that are alike."""
        names = {node: f"%{number}" for number, node in enumerate([*self.inputs, *self.nodes])}

        def named(arguments: Any) -> str:
            return repr(fx.map_arg(arguments, lambda node: names[node]))

        layouts = tuple(_layout(node) for node in self.inputs)
        operations = tuple(
            (node.target, named(node.args), named(node.kwargs)) for node in self.nodes
        )
        return layouts, operations, tuple(names[node] for node in self.results)

    def graph(self) -> fx.GraphModule:
        """The region as a graph of its inputs to its results."""
        graph = fx.Graph()
        copies = {
            node: graph.placeholder(f"input{number}") for number, node in enumerate(self.inputs)
        }
        for node in self.nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output([copies[node] for node in self.results])
        return fx.GraphModule({}, graph)


def _layout(node: fx.Node) -> Hashable:
    """How a value lies in memory, whatever the strides of axes of length 1."""
    value = node.meta.get("val")
    return (
        (value.shape, _usual(value).stride(), value.dtype, value.device)
        if isinstance(value, Tensor)
        else None
    )


def _usual(value: Tensor) -> Tensor:
    """The value with the usual strides for axes of length 1: those of a view that adds them."""
    return value.view(_long(value)).view(value.shape)


def _long(value: Tensor) -> list[int]:
    return [length for length in value.shape if length != 1]


def _read_once(graph: fx.GraphModule) -> None:
    """Read each parameter once: a region that reads it twice would be given two values."""
    first: dict[Any, fx.Node] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        if first.setdefault(node.target, node) is not node:
            node.replace_all_uses_with(first[node.target])
            graph.graph.erase_node(node)
    graph.recompile()


def _is_read(node: fx.Node) -> bool:
    """Whether it is outside of all regions: what is given, or an entry, as a step's learned rate.

    Steps that differ in nothing but which entry they read are alike.
    """
    if node.target is aten.select.int:
        return _is_read(node.all_input_nodes[0])
    return node.op in ("placeholder", "get_attr")


def _regions(graph: fx.Graph) -> list[Region]:
    numbered: dict[int, list[fx.Node]] = {}
    last = max((node.meta[NUMBER] for node in graph.nodes if NUMBER in node.meta), default=-1) + 1
    for node in graph.nodes:
        if node.op != "output" and not _is_read(node):
            numbered.setdefault(node.meta.get(NUMBER, last), []).append(node)
    return [Region(nodes) for nodes in numbered.values()]


def _joined(regions: list[Region], kinds: list[Hashable]) -> list[Region]:
    """The regions, with neighbours in one where both are the only ones of their kinds."""
    joined: list[Region] = []
    alone = False
    for region, kind in zip(regions, kinds, strict=True):
        before, alone = alone, kinds.count(kind) == 1
        if before and alone:
            joined[-1] = Region(joined[-1].nodes + region.nodes)
        else:
            joined.append(region)
    return joined


def _as_for_all(value: fx.Node, node: fx.Node) -> fx.Node:
    """A value as all regions of a kind are given it.

    `torch.compile` would compile anew for what differs.

    That is a parameter where others are given a tensor, and the strides that `_layout` leaves
    aside.
    """
    traced = node.meta.get("val")
    if isinstance(traced, Tensor) and (
        node.op == "get_attr" or traced.stride() != _usual(traced).stride()
    ):
        for shape in (_long(traced), list(traced.shape)):
            value = value.graph.call_function(aten.view.default, (value, shape))
    return value


def _composed(
    graph: fx.GraphModule, regions: list[Region], compile: Callable[[fx.GraphModule], nn.Module]
) -> fx.GraphModule:
    """What calls the compiled regions one after another."""
    caller = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if _is_read(node):
            values[node] = caller.node_copy(node, values.__getitem__)
    names: dict[Hashable, str] = {}
    for region in regions:
        if region.kind not in names:
            names[region.kind] = f"region{len(names)}"
            graph.add_submodule(names[region.kind], compile(region.graph()))
        arguments = tuple(_as_for_all(values[node], node) for node in region.inputs)
        results = caller.call_module(names[region.kind], arguments)
        for number, node in enumerate(region.results):
            values[node] = caller.call_function(operator.getitem, (results, number))
    caller.output(fx.map_arg(graph.graph.output_node().args[0], values.__getitem__))
    return fx.GraphModule(graph, caller)
