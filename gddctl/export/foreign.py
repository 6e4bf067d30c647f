"""Somebody else's segmentation ONNX to our FP32 logits artifact: fixed where it can be, explained where not, compared in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gddctl import __version__
from gddctl.core.artifact.foreign_card import ForeignCard
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.core.lazy import require
from gddctl.core.preprocess import PreprocessSpec
from gddctl.export.artifact_file import write_artifact
from gddctl.export.foreign_body import convert_opset, finish, fold, free_batch, give_shape, name_batch, put_ends
from gddctl.export.foreign_ends import Ends, Layout, find_ends
from gddctl.export.foreign_read import Given, read_foreign
from gddctl.export.foreign_run import (
    IMAGES,
    MIN_SQNR_DB,
    RAW_PIXELS,
    Floats,
    answers_as_given,
    answers_of_ours,
    enlarged,
    noise_images,
    sqnr_db,
)
from gddctl.export.preflight import Finding, channel_finding, opset_of, pool_edges, preflight, refuse

_STRIDES = (2, 4, 8, 16, 32)  # by which networks answer in less than the image's size
_BAKED = "some layer is fixed to the batch it was exported with, or it was exported without model.eval()"
_REMEDY = "nothing was written; export it with a dynamic batch and a current opset"


def import_onnx(path: Path, card: ForeignCard, out: Path, *, opset: int = 20) -> tuple[Artifact, tuple[Finding, ...]]:
    """Write our form of ``path`` to ``out``: image in, logits out, static size, any batch, weights inside, BN folded.

    Args:
        path: a segmentation network from elsewhere, in FP32.
        card: what the file does not say of itself.
        out: the .onnx file; written whole, or not at all.
        opset: of the standard domain, 19 to 22; TensorRT 10.3 reads up to 20.

    Returns:
        The artifact, and what was fixed on the way or is good to know.

    Raises:
        UsageError: no such file, or one of ours.
        ArtifactError: it cannot be made ours; the message says why, where, and what to do. Or it answers otherwise afterwards.
    """
    require("onnxruntime", extra="cpu", why="importing an ONNX file from elsewhere")
    given = read_foreign(path)
    ends = find_ends(given.model, card, str(path))
    spec = card.preprocess.model_copy(update=RAW_PIXELS) if ends.pixels else card.preprocess
    _refuse_before_running(given.model, ends, spec, str(path))
    images = noise_images(spec.size)
    answers = answers_as_given(given.model, ends, spec, images, str(path))
    layout, reference = _as_planes(answers, card, ends.logits, str(path))
    stride = _stride(reference, spec.size, str(path))
    wanted = enlarged(reference, spec.size)
    give_shape(given.model, answers.shape)
    model, converted = convert_opset(given.model, opset, str(path))
    body = _put_ends(model, ends, layout, reference, spec.size)
    model = _proven(model, ends, spec, images, wanted, str(path))
    findings = [*given.findings, *ends.findings, *converted, *body]
    if ends.batch:
        findings.append(Finding("fixed", f"the batch, fixed at {ends.batch}, is free now; {IMAGES} images at once answer as one by one"))
    checked = preflight(model, classes=card.table.names)
    refuse(checked, str(path))
    info = _info(card, given, spec, stride, opset_of(model))
    return write_artifact(model, info, out), (*findings, *checked)


def _refuse_before_running(model: Any, ends: Ends, spec: PreprocessSpec, place: str) -> None:
    """What would run and yet be wrong at the card's size.

    Raises:
        ArtifactError: naming the layer.
    """
    height, width = spec.size
    if any(own not in (0, wanted) for own, wanted in zip(ends.size, spec.size, strict=True)):
        own = " x ".join(str(length or "any") for length in ends.size)
        raise ArtifactError(
            f"{place}: it was exported for {own}, the card says {height} x {width}; layers may be fixed to that size",
            remedy=f"set preprocess.size in the card to {[a or b for a, b in zip(ends.size, spec.size, strict=True)]}, or export it again",
        )
    if 0 in ends.size:
        onnx = require("onnx", extra="export", why="importing an ONNX file")
        sized = onnx.ModelProto()
        sized.CopyFrom(model)
        for dim, length in zip(sized.graph.input[0].type.tensor_type.shape.dim, _dims(ends, spec.size), strict=True):
            dim.dim_value = length
        del sized.graph.value_info[:]
        if edges := pool_edges(sized):
            node, what = edges[0]
            raise ArtifactError(
                f"{place}: {node.name or node.output[0]}: {what}; its kernel was fixed for another size than {height} x {width}",
                remedy="export it at this size, or set preprocess.size in the card to the size it was exported at",
            )


def _dims(ends: Ends, size: tuple[int, int]) -> list[int]:
    batch = ends.batch or 1
    return [batch, 3, *size] if ends.layout == "nchw" else [batch, *size, 3]


def _as_planes(answers: Floats, card: ForeignCard, logits: str, place: str) -> tuple[Layout, Floats]:
    """The layout of the answer, told by the channels that the card names, and the answer as (N, K, h, w)."""
    names = card.table.names
    if answers.ndim != 4:
        raise ArtifactError(
            f"{place}: '{logits}' is {('batch', *answers.shape[1:])}, expected (batch, classes, h, w)",
            remedy="name the map of logits in the card: output: NAME",
        )
    if not np.isfinite(answers).all():
        raise ArtifactError(f"{place}: it answers NaN or infinity to random images", remedy="its weights are broken, or mean and std wrong")
    if answers.shape[1] == len(names):
        return "nchw", answers
    if answers.shape[3] == len(names):
        return "nhwc", np.ascontiguousarray(answers.transpose(0, 3, 1, 2))
    refuse([channel_finding(answers.shape[1], names, logits)], place)
    raise AssertionError("an error finding is always refused")


def _stride(reference: Floats, size: tuple[int, int], place: str) -> int:
    """How many input pixels one logit stands for; 1 where the file enlarges them itself."""
    found = tuple(reference.shape[2:])
    if found == size:
        return 1
    for stride in _STRIDES:
        if all(length in (side // stride, -(-side // stride)) for length, side in zip(found, size, strict=True)):
            return stride
    raise ArtifactError(
        f"{place}: it answers {found[0]} x {found[1]} to an image of {size[0]} x {size[1]}: a size is fixed inside",
        remedy="export it at the card's size, or set preprocess.size in the card to the size it was exported at",
    )


def _put_ends(model: Any, ends: Ends, layout: Layout, reference: Floats, size: tuple[int, int]) -> list[Finding]:
    batchnorms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    findings = put_ends(model, ends, size, reference.shape[1], layout, (reference.shape[2], reference.shape[3]))
    if 0 in ends.size:
        findings.append(Finding("fixed", f"height and width, open in the file, are {size[0]} x {size[1]} now"))
    if batchnorms:
        findings.append(Finding("fixed", f"{batchnorms} BatchNormalization nodes were folded"))
    return findings


def _proven(model: Any, ends: Ends, spec: PreprocessSpec, images: Any, wanted: Floats, place: str) -> Any:
    """``model`` folded, with a free batch and our names, answering like the file on one image and on several at once.

    Folding for one image leaves the fewest nodes; a graph that needs its own arithmetic of batch sizes keeps it.

    Raises:
        ArtifactError: it answers otherwise than the file it was made from.
    """
    try:
        return _checked(free_batch(fold(model, place)), spec, images, wanted, place)
    except ArtifactError:
        if ends.batch:
            raise
    name_batch(model)
    return _checked(fold(model, place), spec, images, wanted, place)


def _checked(model: Any, spec: PreprocessSpec, images: Any, wanted: Floats, place: str) -> Any:
    finish(model)
    for batch in (1, len(images)):
        try:
            decibels = sqnr_db(wanted, answers_of_ours(model, spec, images, batch, place))
        except RunFailed as error:
            raise ArtifactError(f"{error.message}: {_BAKED}" if batch > 1 else error.message, remedy=_REMEDY) from error
        if decibels < MIN_SQNR_DB:
            how = "alone" if batch == 1 else f"{batch} at once (alone they agree: {_BAKED})"
            expected = f"{decibels:.0f} dB, at least {MIN_SQNR_DB:.0f} expected"
            raise ArtifactError(f"{place}: our form of it answers otherwise on random images, {how}: {expected}", remedy=_REMEDY)
    return model


def _info(card: ForeignCard, given: Given, spec: PreprocessSpec, stride: int, opset: int) -> ModelInfo:
    return ModelInfo(
        name=card.name,
        graph="logits",
        precision="fp32",
        target="any",
        classes=card.table,
        preprocess=spec,
        architecture=card.architecture,
        output_stride=card.output_stride or stride,
        weights_sha256=given.weights_sha256,
        parent_sha256=given.sha256,
        opset=opset,
        licence=card.licence,
        gddctl_version=__version__,
    )
