"""An ONNX graph as the plain description that the rule of quantisation reads."""

from __future__ import annotations

from typing import Any

from gddctl.quant.choice import Choice, Op, Placement, choose
from gddctl.quant.naming import tensor_names


def ops_of(graph: Any) -> list[Op]:
    """The nodes, in order; constants left out of their inputs. Shape arithmetic is left out by having no image in its past."""
    constants = {item.name for item in graph.initializer}
    ops = []
    for node in graph.node:
        inputs = tuple(name for name in node.input if name and name not in constants)
        # A Resize also reads its size from the graph; only its first input is an activation.
        weight = node.input[1] if node.op_type == "Conv" and node.input[1] in constants else None
        ops.append(Op(node.op_type, inputs[:1] if node.op_type == "Resize" else inputs, node.output[0], weight))
    return ops


def choice_of(model: Any, placement: Placement = "codes", keep: frozenset[str] | set[str] = frozenset()) -> Choice:
    """What is quantised in an FP32 logits graph."""
    return choose(ops_of(model.graph), [item.name for item in model.graph.output], placement, keep)


def name_tensors(model: Any) -> None:
    """Give the tensors of an FP32 graph their lasting names, in place."""
    graph = model.graph
    names = tensor_names(ops_of(graph), [item.name for item in (*graph.input, *graph.output)])
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
        node.name = node.output[0]
    del graph.value_info[:]  # stale: inferred again by whoever needs it
