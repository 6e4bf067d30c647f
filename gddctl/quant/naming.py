"""Names of tensors that depend on the network alone, not on the exporter's version: ranges and tables speak of them."""

from __future__ import annotations

from collections.abc import Iterable

from gddctl.quant.choice import Op

_WRAPPER = "segmenter."  # the module that is exported wraps the student
_KERNEL = ".weight"


def tensor_names(ops: Iterable[Op], fixed: Iterable[str]) -> dict[str, str]:
    """Old name -> new name of every activation that ``ops`` make, but for ``fixed`` (the graph's inputs and outputs).

    A convolution's output has the path of its module; any other has the name of its first input and its kind.

    >>> ops = [Op("Conv", ("image",), "c1", "segmenter.encoder.conv1.weight"), Op("Relu", ("c1",), "r"), Op("Resize", ("r",), "logits")]
    >>> tensor_names(ops, ["image", "logits"])
    {'c1': 'encoder.conv1', 'r': 'encoder.conv1.relu'}
    """
    kept = set(fixed)
    names: dict[str, str] = {}
    taken, sizes = set(kept), set[str]()
    for op in ops:
        if op.kind == "Shape" or (op.inputs and sizes.issuperset(op.inputs)):
            sizes.add(op.output)  # arithmetic on sizes is no activation
            continue
        if op.output in kept or not op.inputs:
            continue
        name = module_of(op.weight) if op.weight else f"{names.get(op.inputs[0], op.inputs[0])}.{op.kind.lower()}"
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}_{number}", number + 1
        names[op.output] = unique
        taken.add(unique)
    return names


def module_of(weight: str) -> str:
    """The module that a convolution's kernel belongs to.

    >>> module_of("segmenter.head.fuse.0.weight")
    'head.fuse.0'
    """
    return weight.removeprefix(_WRAPPER).removesuffix(_KERNEL)
