"""The two ends of somebody else's graph: which tensor takes the image and which holds the logits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gddctl.core.artifact.foreign_card import ForeignCard
from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.export.preflight import Finding, named, opset_of
from gddctl.export.simplify import drop_unread

Layout = Literal["nchw", "nhwc"]

_LOGITS_NAMES = ("logits", "out", "output")  # what the output of several is taken to be when the card names none
_SAME_PLACES = frozenset({"Identity", "Cast", "Squeeze", "Unsqueeze"})  # what may stand behind an ArgMax
_ONLY_MOVES = frozenset({"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Slice"})  # what bytes may pass before their Cast


@dataclass(frozen=True)
class Ends:
    """Where the image goes in and the logits come out, as the file has it."""

    image: str
    pixels: bool  # it takes uint8 pixels and normalises them itself
    layout: Layout
    batch: int  # images per run, 0: any
    size: tuple[int, int]  # (height, width), 0: any
    logits: str
    findings: tuple[Finding, ...]


def find_ends(model: Any, card: ForeignCard, place: str) -> Ends:
    """Choose both ends and remove, in place, whatever the logits do not need: auxiliary heads, ArgMax, Softmax.

    Raises:
        ArtifactError: they cannot be told, or are nothing gddctl can feed or read.
    """
    findings: list[Finding] = []
    onnx = require("onnx", extra="export", why="importing an ONNX file")
    chosen = _choose_output(model, card, place, findings)
    output = _before_decision(model, chosen, place, findings)
    before = len(model.graph.node)
    others = [item.name for item in model.graph.output if item.name != chosen]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    drop_unread(model.graph)
    if others:
        gone = before - len(model.graph.node)
        findings.append(Finding("fixed", f"of the outputs, {', '.join(others)} and the {gone} nodes that only they need were left out"))
    image = _choose_input(model, card, place)
    return _described(onnx, model, image, output, place, findings)


def _choose_output(model: Any, card: ForeignCard, place: str, findings: list[Finding]) -> str:
    names = [item.name for item in model.graph.output]
    if card.output is not None:
        if card.output not in names:
            raise ArtifactError(
                f"{place}: no output '{card.output}'; {_closest(card.output, names)}", remedy="correct 'output' in the card"
            )
        return card.output
    if len(names) == 1:
        return str(names[0])
    likely = [name for name in names if name in _LOGITS_NAMES]
    if len(likely) != 1:
        raise ArtifactError(
            f"{place}: {len(names)} outputs ({', '.join(names)})", remedy=f"name the logits in the card: output: {names[0]}"
        )
    findings.append(Finding("note", "taken for the logits among several outputs", likely[0], "name another in the card: output: NAME"))
    return str(likely[0])


def _choose_input(model: Any, card: ForeignCard, place: str) -> Any:
    """The image's value info; inputs that nothing reads any more are removed."""
    read = {name for node in model.graph.node for name in node.input}
    for item in [item for item in model.graph.input if item.name not in read]:
        model.graph.input.remove(item)
    names = [item.name for item in model.graph.input]
    if card.input is not None and card.input not in names:
        raise ArtifactError(f"{place}: no input '{card.input}'; {_closest(card.input, names)}", remedy="correct 'input' in the card")
    if len(names) != 1:
        listed = f"{len(names)} inputs ({', '.join(names)})" if names else "no input that the logits depend on"
        raise ArtifactError(f"{place}: {listed}, expected the image alone", remedy="export the network with its image as the only input")
    return model.graph.input[0]


def _described(onnx: Any, model: Any, item: Any, output: str, place: str, findings: list[Finding]) -> Ends:
    kinds = onnx.TensorProto
    kind = item.type.tensor_type.elem_type
    dims = [dim.dim_value for dim in item.type.tensor_type.shape.dim]
    shape = [dim.dim_value or dim.dim_param or "?" for dim in item.type.tensor_type.shape.dim]
    if kind not in (kinds.FLOAT, kinds.UINT8):
        raise ArtifactError(
            f"{place}: the input '{item.name}' is {kinds.DataType.Name(kind)}, expected FLOAT (or UINT8 pixels)", remedy="export in FP32"
        )
    if len(dims) != 4 or (dims[1] not in (0, 3) and dims[3] != 3):
        raise ArtifactError(
            f"{place}: the input '{item.name}' is {shape}, expected (batch, 3, H, W) or (batch, H, W, 3)",
            remedy="gddctl feeds one RGB image; export the network for that",
        )
    layout: Layout = "nchw" if dims[1] == 3 or (dims[1] == 0 and dims[3] != 3) else "nhwc"
    size = (dims[2], dims[3]) if layout == "nchw" else (dims[1], dims[2])
    if kind == kinds.UINT8:
        _refuse_byte_arithmetic(model, item.name, place)
        what = "takes uint8 pixels and normalises them itself: it gets pixels as floats (mean 0, std 1/255), whatever the card says"
        findings.append(Finding("fixed", what, item.name))
    return Ends(item.name, kind == kinds.UINT8, layout, dims[0], size, output, tuple(findings))


def _refuse_byte_arithmetic(model: Any, image: str, place: str) -> None:
    """Bytes may be moved about before they are cast to float, not computed with."""
    moved, bad = {image}, []
    for node in model.graph.node:
        if not moved.intersection(node.input) or node.op_type in ("Cast", "Shape"):
            continue
        if node.op_type in _ONLY_MOVES:
            moved.add(node.output[0])
        else:
            bad.append(node)
    if bad:
        raise ArtifactError(
            f"{place}: {named(bad)} ({bad[0].op_type}) computes with uint8 pixels; TensorRT does not",
            remedy="cast to float first, and export again",
        )


def _before_decision(model: Any, output: str, place: str, findings: list[Finding]) -> str:
    """The tensor that a closing ArgMax or Softmax decides over."""
    makers = {name: node for node in model.graph.node for name in node.output}
    name = output
    while name in makers:
        node = makers[name]
        if node.op_type == "ArgMax":
            if (axis := _axis(node, 0)) not in (1, 3):
                raise ArtifactError(f"{place}: {named([node])}: ArgMax over axis {axis}, expected the classes", remedy="export logits")
            findings.append(Finding("fixed", "the closing ArgMax was removed: INT8 and parity need the logits before it", named([node])))
            output = name = str(node.input[0])
        elif (found := _before_softmax(node, makers, opset_of(model))) is not None:
            softmax, output = found
            name = output
            what = f"the closing {softmax.op_type} was removed: it does not change which class is largest"
            findings.append(Finding("fixed", what, named([softmax])))
        elif node.op_type in _SAME_PLACES:
            name = str(node.input[0])
        else:
            break
    _look_for_probabilities(makers, name, findings)
    _refuse_ids(model, output, place)
    return output


def _before_softmax(node: Any, makers: dict[str, Any], opset: int) -> tuple[Any, str] | None:
    """A Softmax over the classes and what it reads; before opset 13 exporters stand it between two Transposes that cancel."""
    kinds = ("Softmax", "LogSoftmax")
    if node.op_type in kinds and _axis(node, -1 if opset >= 13 else 1) in ((1, 3) if opset >= 13 else (3,)):
        return node, str(node.input[0])
    middle = makers.get(node.input[0]) if node.op_type == "Transpose" else None
    if middle is None or middle.op_type not in kinds or _axis(middle, 1) != 3:
        return None
    first = makers.get(middle.input[0])
    if first is None or first.op_type != "Transpose":
        return None
    there, back = _perm(first), _perm(node)
    cancel = [there[place] for place in back] == [0, 1, 2, 3]
    return (middle, str(first.input[0])) if cancel and there[3] == 1 else None


def _look_for_probabilities(makers: dict[str, Any], name: str, findings: list[Finding]) -> None:
    """A Softmax that is resized afterwards cannot be taken out without changing the answer."""
    while name in makers and makers[name].op_type in ("Resize", "Upsample", "Identity", "Cast", "Transpose", "Sigmoid", "Softmax"):
        node = makers[name]
        if node.op_type in ("Softmax", "Sigmoid"):
            what = f"the output is probabilities ({node.op_type}), not logits; it is kept, and its differences are judged on that scale"
            findings.append(Finding("note", what, named([node]), "export logits for sharper checks"))
            return
        name = node.input[0]


def _refuse_ids(model: Any, output: str, place: str) -> None:
    onnx = require("onnx", extra="export", why="importing an ONNX file")
    kinds = onnx.TensorProto
    declared = {item.name: item.type.tensor_type.elem_type for item in (*model.graph.output, *model.graph.value_info)}
    if (kind := declared.get(output, kinds.FLOAT)) not in (kinds.FLOAT, kinds.UNDEFINED):
        remedy = "export the network's logits, before ArgMax and any rounding"
        if kind in (kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE):
            remedy = "export the network in FP32 (model.float())"
        raise ArtifactError(f"{place}: the output '{output}' is {kinds.DataType.Name(kind)}, expected FLOAT logits", remedy=remedy)


def _axis(node: Any, default: int) -> int:
    """The axis, of four."""
    return int(next((item.i for item in node.attribute if item.name == "axis"), default)) % 4


def _perm(node: Any) -> list[int]:
    return next((list(item.ints) for item in node.attribute if item.name == "perm"), [])


def _closest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}"
