"""Which tensors of a graph are quantised: the rule for convolutional networks, on a plain description of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Integer kernels exist for these between quantised tensors; whatever else a graph holds computes in float between a DQ and a Q.
_FOLLOWERS = frozenset({"MaxPool", "Add", "Concat", "Resize", "GlobalAveragePool", "AveragePool", "Relu"})
_SAME_CODE = frozenset({"MaxPool", "Resize"})  # they only pick or blend: output codes mean what input codes mean


@dataclass(frozen=True)
class Op:
    """One node: its kind, its activation inputs and its first output (constants are left out)."""

    kind: str
    inputs: tuple[str, ...]
    output: str


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


def choose(ops: Iterable[Op], outputs: Iterable[str]) -> Choice:
    """Choose the tensors that get a Q/DQ pair.

    Rules: every convolution but the last ones before an output takes and gives codes; ReLU is folded into what feeds it, by coding
    its output only; additions, poolings, concatenations and resizes between coded tensors stay in codes; the classifier's logits and what
    follows stay float, since a class is decided by differences smaller than an 8-bit step.
    """
    ops = list(ops)
    readers: dict[str, list[Op]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    classifiers = _last_convs(ops, set(outputs))
    chosen: dict[str, None] = {}
    leader: dict[str, str] = {}
    for op in ops:
        if op.kind == "Conv":
            chosen.setdefault(op.inputs[0])
            coded = op.output not in classifiers
        else:
            coded = op.kind in _FOLLOWERS and bool(op.inputs) and all(name in chosen for name in op.inputs)
        if not coded:
            continue
        after = readers.get(op.output, [])
        if op.kind != "Relu" and len(after) == 1 and after[0].kind == "Relu" and op.kind in ("Conv", "Add"):
            chosen.setdefault(after[0].output)  # the ReLU's output carries the code; the pair must not stand between
        else:
            chosen.setdefault(op.output)
        if op.kind in _SAME_CODE:
            leader[op.output] = op.inputs[0]
    return Choice(tensors=tuple(chosen), float_convs=frozenset(classifiers), leader=leader)


def _last_convs(ops: list[Op], outputs: set[str]) -> set[str]:
    """Outputs of convolutions from which an output is reached without another convolution."""
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
