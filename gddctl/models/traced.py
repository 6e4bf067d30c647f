"""A student's forward pass as a list of steps, with the names that its exported graph gives to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.core.errors import ConfigError
from gddctl.models.segmenter import Segmenter
from gddctl.quant.choice import Op
from gddctl.quant.naming import tensor_names

IMAGE = "image"
_WRAPPER = "segmenter."

_aten = torch.ops.aten

# How the ONNX exporter writes an ATen operation, as a chain of kinds; and the operation that leaves its operand alone.
_KINDS: dict[Any, tuple[tuple[str, ...], Callable[..., Tensor]]] = {
    _aten.relu.default: (("Relu",), _aten.relu.default),
    _aten.relu_.default: (("Relu",), _aten.relu.default),
    _aten.add.Tensor: (("Add",), _aten.add.Tensor),
    _aten.add_.Tensor: (("Add",), _aten.add.Tensor),
    _aten.cat.default: (("Concat",), _aten.cat.default),
    _aten.matmul.default: (("MatMul",), _aten.matmul.default),
    _aten.max_pool2d.default: (("MaxPool",), _aten.max_pool2d.default),
    _aten.avg_pool2d.default: (("AveragePool",), _aten.avg_pool2d.default),
    _aten.mean.dim: (("GlobalAveragePool",), _aten.mean.dim),  # over the map, as the heads do it
    _aten.upsample_bilinear2d.vec: (("Resize",), _aten.upsample_bilinear2d.vec),
    _aten.upsample_nearest2d.vec: (("Resize",), _aten.upsample_nearest2d.vec),
    _aten.group_norm.default: (("Reshape", "InstanceNormalization", "Reshape", "Mul", "Add"), _aten.group_norm.default),
}
_NOTHING = (_aten.dropout.default, _aten.dropout_.default, _aten.feature_dropout.default)  # in eval mode


@dataclass(frozen=True)
class Activation:
    """Stands for the tensor ``name`` among a step's arguments."""

    name: str


@dataclass(frozen=True)
class Parameter:
    """Stands for the network's parameter or buffer ``path``."""

    path: str


@dataclass(frozen=True)
class Constant:
    """Stands for ``Traced.constants[index]``."""

    index: int


@dataclass(frozen=True)
class Norm:
    """The batch norm behind a convolution: paths of its tensors."""

    weight: str
    bias: str
    mean: str
    variance: str
    eps: float


@dataclass(frozen=True)
class Convolution:
    """A 2-d convolution with its batch norm, which the exporter folds into it."""

    source: str
    output: str
    weight: str  # path
    bias: str | None
    geometry: tuple[Any, ...]  # stride, padding, dilation, groups
    norm: Norm | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensor it reads."""
        return (self.source,)


@dataclass(frozen=True)
class Operation:
    """Anything else: called with its arguments, placeholders filled in."""

    kinds: tuple[str, ...]
    output: str
    call: Callable[..., Tensor]
    args: tuple[Any, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors it reads."""
        return tuple(item.name for item in _flat(self.args) if isinstance(item, Activation))


Step = Convolution | Operation


@dataclass(frozen=True)
class Traced:
    """The forward pass of a student in eval mode, for images of one size."""

    steps: tuple[Step, ...]
    constants: tuple[Tensor, ...]
    logits: str  # before the final resize
    features: tuple[str, ...]  # stage 1 to 4, head

    def ops(self) -> list[Op]:
        """What the rule of quantisation reads."""
        return list(_ops(self.steps))

    def last_use(self) -> dict[str, int]:
        """Tensor -> index of the last step that reads it; outputs are used to the end."""
        found = {name: index for index, step in enumerate(self.steps) for name in step.sources}
        return {**found, **dict.fromkeys((self.logits, *self.features), len(self.steps))}


class _Ends(nn.Module):
    """Image in, logits and features out: a plain tuple, as tracing wants it."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.segmenter(image)
        return (outputs.logits, *outputs.features.values())


def trace(network: Segmenter, size: tuple[int, int]) -> Traced:
    """Follow ``network`` in eval mode, for any number of images of ``size`` (height, width).

    Raises:
        ConfigError: an operation that is not known here, or a batch norm that does not follow a convolution.
    """
    training = network.training
    ends = _Ends(network).eval()
    try:
        device = next(network.parameters()).device
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        program = torch.export.export(ends, (torch.zeros(2, 3, *size, device=device),), dynamic_shapes=shapes)
    finally:
        network.train(training)
    return _Reader(program).read()


class _Reader:
    """Turns the nodes of an exported program into steps, in their order."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._nodes = list(program.graph.nodes)
        signature = program.graph_signature
        self._paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._lifted = {name: program.constants[path] for name, path in signature.inputs_to_lifted_tensor_constants.items()}
        self._known: dict[str, Any] = {}  # node -> what stands for it
        self._steps: dict[str, Step] = {}
        self._constants: list[Tensor] = []

    def read(self) -> Traced:
        """All nodes, then the names."""
        outputs: tuple[str, ...] = ()
        for node in self._nodes:
            if node.op == "placeholder":
                self._known[node.name] = self._placeholder(node.name)
            elif node.op == "output":
                outputs = tuple(self._known[item.name].name for item in node.args[0])
            else:
                self._known[node.name] = self._call(node)
        names = tensor_names(_ops(self._steps.values()), [IMAGE])
        steps = tuple(_renamed(step, names) for step in self._steps.values())
        logits, *features = (names[name] for name in outputs)
        return Traced(steps, tuple(self._constants), logits, tuple(features))

    def _placeholder(self, name: str) -> Any:
        if name in self._paths:
            return Parameter(self._paths[name].removeprefix(_WRAPPER))
        if name in self._lifted:
            return self._lifted[name]
        return Activation(IMAGE)

    def _call(self, node: Any) -> Any:
        """What stands for the node's value, having noted the step that makes it."""
        args = torch.fx.map_arg(node.args, lambda item: self._known[item.name])
        if not any(isinstance(item, (Activation, Parameter)) for item in _flat(args)):
            return node.target(*args, **node.kwargs)  # of constants alone: known now
        if node.target in _NOTHING:
            return args[0]
        if node.target is _aten.conv2d.default:
            return self._note(_convolution(node.name, args))
        if node.target is _aten.batch_norm.default:
            return self._fold(node, args)
        if node.target not in _KINDS or node.kwargs:
            raise _unknown(node)
        kinds, call = _KINDS[node.target]
        return self._note(Operation(kinds, node.name, call, cast("tuple[Any, ...]", self._kept(args))))

    def _note(self, step: Step) -> Activation:
        self._steps[step.output] = step
        return Activation(step.output)

    def _fold(self, node: Any, args: Sequence[Any]) -> Activation:
        """A batch norm becomes part of the convolution before it."""
        source, weight, bias, mean, variance = args[:5]
        step = self._steps.get(source.name)
        alone = len(node.args[0].users) == 1
        if not (isinstance(step, Convolution) and step.norm is None and alone):
            raise _unknown(node)
        self._steps[source.name] = replace(step, norm=Norm(weight.path, bias.path, mean.path, variance.path, float(args[7])))
        return cast(Activation, source)

    def _kept(self, value: Any) -> Any:
        """``value`` with tensors exchanged for places in the list of constants."""
        if isinstance(value, Tensor):
            self._constants.append(value.detach().clone())
            return Constant(len(self._constants) - 1)
        if isinstance(value, (list, tuple)):
            return tuple(self._kept(item) for item in value)
        return value


def _convolution(name: str, args: Sequence[Any]) -> Convolution:
    defaults: tuple[Any, ...] = (None, (1, 1), (0, 0), (1, 1), 1)  # bias, stride, padding, dilation, groups
    source, weight, bias, *geometry = [*args, *defaults[len(args) - 2 :]]
    return Convolution(source.name, name, weight.path, None if bias is None else bias.path, tuple(geometry))


def _ops(steps: Any) -> Iterator[Op]:
    for step in steps:
        match step:
            case Convolution():
                yield Op("Conv", (step.source,), step.output, step.weight)
            case Operation():
                *inner, last = step.kinds
                sources = step.sources
                for place, kind in enumerate(inner):
                    yield Op(kind, sources, f"{step.output}.{place}")
                    sources = (f"{step.output}.{place}",)
                yield Op(last, sources, step.output)
            case _:
                assert_never(step)


def _renamed(step: Step, names: dict[str, str]) -> Step:
    match step:
        case Convolution():
            return replace(step, source=names.get(step.source, step.source), output=names[step.output])
        case Operation():
            args = _map(step.args, lambda item: Activation(names.get(item.name, item.name)) if isinstance(item, Activation) else item)
            return replace(step, output=names[step.output], args=args)
        case _:
            assert_never(step)


def filled(step: Operation, look_up: Callable[[Activation | Parameter | Constant], Tensor]) -> tuple[Any, ...]:
    """The arguments of ``step`` with ``look_up`` of every placeholder."""
    args: tuple[Any, ...] = _map(step.args, lambda item: look_up(item) if isinstance(item, (Activation, Parameter, Constant)) else item)
    return args


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    return tuple(_map(item, change) for item in value) if isinstance(value, (list, tuple)) else change(value)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _unknown(node: Any) -> ConfigError:
    return ConfigError(
        f"quantisation-aware training does not know the operation {node.target} ('{node.name}') of this network",
        remedy="take a ResNet encoder, or train without --quantize",
    )
