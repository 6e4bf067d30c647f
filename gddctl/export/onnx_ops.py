"""An ONNX graph as the plain description that the rule of quantisation reads."""

from __future__ import annotations

from typing import Any

from gddctl.quant.choice import Choice, Op, choose


def ops_of(graph: Any) -> list[Op]:
    """The nodes, in order; constants left out of their inputs. Shape arithmetic is left out by having no image in its past."""
    constants = {item.name for item in graph.initializer}
    ops = []
    for node in graph.node:
        inputs = tuple(name for name in node.input if name and name not in constants)
        # A Resize also reads its size from the graph; only its first input is an activation.
        ops.append(Op(node.op_type, inputs[:1] if node.op_type == "Resize" else inputs, node.output[0]))
    return ops


def choice_of(model: Any) -> Choice:
    """What is quantised in an FP32 logits graph."""
    return choose(ops_of(model.graph), [item.name for item in model.graph.output])
