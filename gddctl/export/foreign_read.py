"""Somebody else's ONNX file, read whole: cut-off files, weights beside the file and model-local functions are met here."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gddctl.core.artifact.info import METADATA_KEY
from gddctl.core.digest import sha256_bytes, sha256_file
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.lazy import require
from gddctl.export.graph_file import load_model
from gddctl.export.preflight import STANDARD, Finding, before_running, refuse
from gddctl.runtime.onnx_header import read_header

MAX_BYTES = 2**31 - 2**20  # protobuf's limit for one message, less what we add


@dataclass(frozen=True)
class Given:
    """A file as it was given, with its weights inside."""

    model: Any  # ModelProto
    sha256: str  # of the file
    weights_sha256: str
    findings: tuple[Finding, ...]


def read_foreign(path: Path) -> Given:
    """Read ``path`` and whatever weights lie beside it.

    Raises:
        UsageError: no such file, or one of ours.
        ArtifactError: cut off, not ONNX, weights missing, too large, or with operators outside the standard.
    """
    onnx = require("onnx", extra="export", why="reading an ONNX file from elsewhere")
    if not path.is_file():
        raise UsageError(f"{path}: no such file", remedy="name the .onnx file")
    if METADATA_KEY in read_header(path).metadata:
        raise UsageError(f"{path}: exported by gddctl, it describes itself", remedy="leave --card out")
    model = load_model(path)
    findings = _take_inside(onnx, model, path)
    if len(model.functions):
        model = onnx.inliner.inline_local_functions(model)
        findings.append(Finding("fixed", "functions of the model's own were written out as nodes"))
    refuse(before_running(model), str(path))
    model = _tidied(onnx, model, path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's errors share no narrower base
        what = " ".join(str(error).split())[:240]
        raise ArtifactError(f"{path}: not a valid ONNX model ({what})", remedy="export it again") from error
    constants = {item.name for item in model.graph.initializer}
    if both := [item for item in model.graph.input if item.name in constants]:
        for item in both:
            model.graph.input.remove(item)
        findings.append(Finding("fixed", f"{len(both)} weights were also listed as inputs, as old exporters do; they are constants now"))
    return Given(model, sha256_file(path), weights_digest(model), tuple(findings))


def weights_digest(model: Any) -> str:
    """One digest over the values of all weights, whatever their names and order.

    The same for a file with its weights inside and one with them beside it.
    """
    onnx = require("onnx", extra="export", why="hashing weights")
    tensors = list(model.graph.initializer)
    tensors += [item.t for node in model.graph.node if node.op_type == "Constant" for item in node.attribute if item.name == "value"]
    digests = []
    for tensor in tensors:
        value = onnx.numpy_helper.to_array(tensor)
        digest = hashlib.sha256(f"{value.dtype} {value.shape} ".encode())
        digest.update(value.tobytes())
        digests.append(digest.hexdigest())
    return sha256_bytes("".join(sorted(digests)).encode())


def _tidied(onnx: Any, model: Any, path: Path) -> Any:
    """Spellings made one, repeated node names made different, shapes of outputs filled in: what other readers stumble over."""
    if not model.graph.output:
        raise ArtifactError(f"{path}: the graph has no output", remedy="export it again")
    names = [name for node in model.graph.node for name in (node.name, *node.input, *node.output)]
    if not all(isinstance(name, str) for name in (*names, *(item.name for item in model.graph.initializer))):
        raise ArtifactError(f"{path}: names in it are not UTF-8", remedy="the file is damaged; copy or export it again")
    for item in (*model.opset_import, *model.graph.node):
        item.domain = "" if item.domain in STANDARD else item.domain
    counts = Counter(node.name for node in model.graph.node)
    for place, node in enumerate(model.graph.node):
        if node.name and counts[node.name] > 1:
            node.name = f"{node.name}:{place}"
    if all(item.type.tensor_type.HasField("shape") for item in model.graph.output):
        return model
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # inference raises several unrelated types
        raise ArtifactError(f"{path}: its shapes do not infer ({' '.join(str(error).split())[:200]})", remedy="export it again") from error


def _take_inside(onnx: Any, model: Any, path: Path) -> list[Finding]:
    """Load the weights that lie in other files, each checked for its length."""
    outside = [item for item in model.graph.initializer if item.data_location == onnx.TensorProto.EXTERNAL]
    files = {entry.value for item in outside for entry in item.external_data if entry.key == "location"}
    for name in sorted(files):
        if not (path.parent / name).is_file():
            raise ArtifactError(f"{path}: its weights lie in '{name}', which is not beside it", remedy="copy both files, or export in one")
    if model.ByteSize() + sum((path.parent / name).stat().st_size for name in files) > MAX_BYTES:
        raise ArtifactError(f"{path}: more than 2 GiB with its weights inside, the limit of an ONNX file", remedy="give a smaller network")
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # a file that is too short, a place outside the folder: unrelated types
        raise ArtifactError(
            f"{path}: its weights cannot be read ({' '.join(str(error).split())[:200]})", remedy="copy all files"
        ) from error
    for item in model.graph.initializer:
        try:
            onnx.numpy_helper.to_array(item)
        except Exception as error:  # likewise
            raise ArtifactError(f"{path}: the weight '{item.name}' is cut off", remedy="copy or export it again") from error
    return [Finding("fixed", f"{len(outside)} weights lay in {', '.join(sorted(files))}; they are inside now")] if outside else []
