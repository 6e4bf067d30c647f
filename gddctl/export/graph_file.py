"""What every exported ONNX file must be, checked before it is written, and how it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gddctl.core.artifact.info import ModelInfo, flat_metadata
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require

MAX_IR = 10  # what opset 20 to 22 needs, and the newest that JetPack 6's and older runtimes read
MAX_NODES = 1500  # a student has 65 to 120, its INT8 form 400; adaptive pooling left in alone brings 700


def load_artifact(artifact: Artifact) -> Any:
    """The ``ModelProto`` of an artifact, once its bytes are those that its lineage names.

    Raises:
        ArtifactError: the file was changed since, or is gone.
    """
    if not artifact.path.is_file() or sha256_file(artifact.path) != artifact.sha256:
        raise ArtifactError(f"{artifact.path}: gone, or changed since it was made ({artifact.sha256[:12]}…)", remedy="export it again")
    return load_model(artifact.path)


def load_model(path: Path) -> Any:
    """The ``ModelProto`` of a file of ours.

    Raises:
        ArtifactError: it does not parse.
    """
    onnx = require("onnx", extra="export", why="editing an ONNX graph")
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError is not importable by a stable name
        raise ArtifactError(f"{path}: not a readable ONNX file ({error})", remedy="copy or export it again") from error


def save_model(model: Any, info: ModelInfo, path: Path) -> None:
    """Write ``model`` with ``info`` as its metadata, replacing what metadata it had."""
    onnx = require("onnx", extra="export", why="writing an ONNX file")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, flat_metadata(info))
    model.producer_name, model.producer_version = "gddctl", info.gddctl_version
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_graph(model: Any, info: ModelInfo) -> None:
    """Check a graph against what it claims to be.

    Raises:
        ArtifactError: naming the first thing that is not so.
    """
    onnx = require("onnx", extra="export", why="checking an ONNX graph")
    graph = model.graph
    opsets = {item.domain: item.version for item in model.opset_import}
    _expect(
        opsets.get("", 0) == info.opset, f"its opset is {opsets.get('', 0)}, not the {info.opset} that was asked for", "ask for opset 20"
    )
    _expect(not set(opsets) - {""}, f"it uses operators outside the ONNX standard ({', '.join(sorted(set(opsets) - {''}))})")
    _expect(model.ir_version <= MAX_IR, f"its IR version is {model.ir_version}, at most {MAX_IR} is readable everywhere")
    kinds = [node.op_type for node in graph.node]
    _expect("BatchNormalization" not in kinds, f"{kinds.count('BatchNormalization')} BatchNormalization nodes were not folded")
    _expect(len(kinds) <= MAX_NODES, f"it has {len(kinds)} nodes, at most {MAX_NODES} expected: some layer was unrolled")
    external = [item.name for item in graph.initializer if item.data_location == onnx.TensorProto.EXTERNAL]
    _expect(not external, f"{len(external)} weights lie outside the file")
    _expect([item.name for item in graph.input] == ["image"], f"its inputs are {[item.name for item in graph.input]}, expected ['image']")
    wanted, dims = expected_io(info)
    for value in (*graph.input, *graph.output):
        _expect(value.name in wanted, f"its output is '{value.name}', expected '{list(wanted)[1]}'")
        found = [dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim]
        _expect(
            found[1:] == dims[value.name] and isinstance(found[0], str),
            f"'{value.name}' is {found}, expected ['batch', *{dims[value.name]}]",
        )
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        _expect(kind == wanted[value.name], f"'{value.name}' is {kind}, expected {wanted[value.name]}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # checker and shape inference raise different, unrelated types
        raise ArtifactError(f"the exported graph is not valid ONNX ({' '.join(str(error).split())[:240]})") from error


def expected_io(info: ModelInfo) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Element type and dimensions after the batch, by name: the input first, then the output."""
    height, width = info.preprocess.size
    if info.graph == "logits":
        return {"image": "FLOAT", "logits": "FLOAT"}, {"image": [3, height, width], "logits": [len(info.classes), height, width]}
    return {"image": "UINT8", "mask": "UINT8"}, {"image": [height, width, 3], "mask": [height, width]}


def _expect(holds: bool, what: str, remedy: str | None = None) -> None:
    if not holds:
        raise ArtifactError(f"the exported graph was refused: {what}", remedy=remedy)
