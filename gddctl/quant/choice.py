"""Which tensors of a graph are quantised: the rule for convolutional networks, on a plain description of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from typing_extensions import assert_never

# How Q/DQ pairs are placed. "codes": every tensor between integer kernels carries codes, as ONNX Runtime and OpenVINO fuse them.
# "inputs": pairs stand on what convolutions read and on the shortcut of an addition, as TensorRT fuses conv + add + ReLU.
Placement = Literal["codes", "inputs"]

# Integer kernels exist for these between quantised tensors; whatever else a graph holds computes in float between a DQ and a Q.
_FOLLOWERS = frozenset({"MaxPool", "Add", "Concat", "Resize", "GlobalAveragePool", "AveragePool", "Relu"})
_SAME_CODE = frozenset({"MaxPool", "Resize"})  # they only pick or blend: output codes mean what input codes mean


@dataclass(frozen=True)
class Op:
    """One node: its kind, its activation inputs and its first output (constants are left out)."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    weight: str | None = None  # the constant's name, of a convolution


@dataclass(frozen=True)
class Choice:
    """The quantised tensors, and which of them share one code."""

    tensors: tuple[str, ...]  # in graph order
    float_convs: frozenset[str]  # outputs of convolutions that stay in float
    leader: Mapping[str, str] = field(default_factory=dict)  # tensor -> the tensor whose code it shares

    def code_of(self, tensor: str) -> str:
        """The tensor whose range gives this tensor's code."""
        while tensor in self.leader:
            tensor = self.leader[tensor]
        return tensor


def choose(
    ops: Iterable[Op], outputs: Iterable[str], placement: Placement = "codes", keep: frozenset[str] | set[str] = frozenset()
) -> Choice:
    """Choose the tensors that get a Q/DQ pair.

    Args:
        ops: the graph in topological order.
        outputs: its outputs.
        placement: what the target's runtime fuses.
        keep: outputs of convolutions to leave in float besides the classifiers.

    The classifier's logits and what follows always stay float, since a class is decided by differences smaller than an 8-bit step.
    """
    ops = list(ops)
    classifiers = last_convs(ops, set(outputs))
    graph = _Graph(ops, frozenset(classifiers | set(keep)))
    match placement:
        case "codes":
            return _choose_codes(graph)
        case "inputs":
            return _choose_inputs(graph)
        case _:
            assert_never(placement)


def last_convs(ops: list[Op], outputs: set[str]) -> set[str]:
    """Outputs of the classifiers: convolutions from which an output is reached without another convolution."""
    makers = {op.output: op for op in ops}
    found, seen, queue = set[str](), set[str](), list(outputs)
    while queue:
        name = queue.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        op = makers[name]
        if op.kind == "Conv":
            found.add(name)
        else:
            queue.extend(op.inputs)
    return found


class _Graph:
    """Who makes and who reads each tensor."""

    def __init__(self, ops: list[Op], float_convs: frozenset[str]) -> None:
        self.ops, self.float_convs = ops, float_convs
        self.makers = {op.output: op for op in ops}
        self.readers: dict[str, list[Op]] = {}
        for op in ops:
            for name in op.inputs:
                self.readers.setdefault(name, []).append(op)

    def is_integer_conv(self, tensor: str) -> bool:
        """Whether a convolution that is quantised makes ``tensor``."""
        return tensor in self.makers and self.makers[tensor].kind == "Conv" and tensor not in self.float_convs

    def in_order(self, chosen: set[str]) -> tuple[str, ...]:
        """``chosen`` in the order in which the graph makes them, its inputs first."""
        given = dict.fromkeys(name for op in self.ops for name in op.inputs if name not in self.makers)
        return tuple(name for name in (*given, *self.makers) if name in chosen)


def _choose_codes(graph: _Graph) -> Choice:
    """Every convolution but the float ones takes and gives codes.

    ReLU is folded into what feeds it, by coding its output only; additions, poolings, concatenations and resizes between coded
    tensors stay in codes.
    """
    chosen: dict[str, None] = {}
    leader: dict[str, str] = {}
    for op in graph.ops:
        if op.kind == "Conv":
            coded = op.output not in graph.float_convs
            if coded:
                chosen.setdefault(op.inputs[0])
        else:
            coded = op.kind in _FOLLOWERS and bool(op.inputs) and all(name in chosen for name in op.inputs)
        if not coded:
            continue
        after = graph.readers.get(op.output, [])
        if op.kind != "Relu" and len(after) == 1 and after[0].kind == "Relu" and op.kind in ("Conv", "Add"):
            chosen.setdefault(after[0].output)  # the ReLU's output carries the code; the pair must not stand between
        else:
            chosen.setdefault(op.output)
        if op.kind in _SAME_CODE:
            leader[op.output] = op.inputs[0]
    return Choice(tensors=graph.in_order(set(chosen)), float_convs=graph.float_convs, leader=leader)


def _choose_inputs(graph: _Graph) -> Choice:
    """What integer convolutions read, and what commutes with its codes.

    A convolution's own output stays float, so that the runtime can fuse the addition and the ReLU behind it before it rounds; of an
    addition's operands only the shortcut carries codes.
    """
    chosen = {op.inputs[0] for op in graph.ops if op.kind == "Conv" and op.output not in graph.float_convs}
    leader: dict[str, str] = {}
    for op in graph.ops:
        if op.kind == "Add" and len(op.inputs) == 2 and op.inputs[0] != op.inputs[1]:
            left, right = op.inputs
            if graph.is_integer_conv(left):
                chosen.add(right)
            elif graph.is_integer_conv(right):
                chosen.add(left)
    for op in reversed(graph.ops):
        if op.output not in chosen:
            continue
        if op.kind == "MaxPool":  # it only picks: rounding before it gives the same, and the pooling itself runs on codes
            chosen.add(op.inputs[0])
            leader[op.output] = op.inputs[0]
        elif op.kind == "Concat" and all(graph.readers[name] == [op] and name not in chosen for name in op.inputs):
            for name in op.inputs:  # one common scale lets the concatenation run on codes
                chosen.add(name)
                leader[name] = op.output
    return Choice(tensors=graph.in_order(chosen), float_convs=graph.float_convs, leader=leader)
