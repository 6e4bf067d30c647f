"""The first tensor that drifts between two graphs of one student: both run on the same images, compared tensor by tensor by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from gddctl.core.config.sections import Precision
from gddctl.core.errors import ArtifactError
from gddctl.core.reports.drift import DriftReport, TensorDrift
from gddctl.data.dataset import SegDataset
from gddctl.prove.difference import SQNR_CAP_DB, StreamingDifference
from gddctl.prove.exposed import ExposedGraph, Tensor
from gddctl.prove.ladder import Member
from gddctl.prove.predict import network_input
from gddctl.prove.progress import Progress
from gddctl.prove.subject import chosen_images

IMAGES = 4  # tensors have so many elements that a few images tell
_BUDGET = 1 << 26  # elements of both graphs that are held at once, in float32: 256 MiB

# By the candidate's precision, dB: a floor, the largest loss at once, and what counts as healthy. Rounding alone leaves the tensors of
# FP32 graphs of one network at 110 and more, those of FP16 graphs near 65, of INT8 graphs at 27 to 47 with at most 6 lost at once.
_THRESHOLDS: dict[Precision, tuple[float, float, float]] = {
    "fp32": (60.0, 40.0, 120.0),
    "fp16": (30.0, 20.0, 60.0),
    "int8": (8.0, 12.0, 35.0),
}


def locate(
    reference: Member, candidate: Member, dataset: SegDataset, *, images: int = IMAGES, progress: Progress | None = None
) -> DriftReport:
    """Compare the tensors inside two ONNX files.

    A tensor of the reference is held against what the candidate's next nodes read in its place: its dequantised form where the
    candidate rounds it, else the tensor of that name.

    Args:
        reference: an ONNX file to trust.
        candidate: an ONNX file made from it, or from the same student.
        dataset: images; labels are not looked at.
        images: how many of them, spread evenly.
        progress: called with (done, of) tensors.

    Raises:
        ArtifactError: one of the two is no ONNX file, or they have no tensor in common.
        EnvironmentMissing: onnx or ONNX Runtime is not there.
    """
    for member in (reference, candidate):
        if member.kind != "onnx":
            raise ArtifactError(f"{member.path}: a {member.kind} shows no inner tensors", remedy="name two ONNX files")
    left, right = ExposedGraph(reference.path, reference.info), ExposedGraph(candidate.path, candidate.info)
    pairs = {name: twin for name in left.tensors if (twin := _twin(name, right)) is not None}
    if not pairs:
        raise ArtifactError(
            f"{reference.path} and {candidate.path} have no tensor in common", remedy="name two files exported from one student"
        )
    chosen = chosen_images(dataset, images)
    inputs = [[network_input(dataset[index].image, member.info)[0][None] for index in chosen] for member in (reference, candidate)]
    measured: dict[str, TensorDrift] = {}
    for names in _groups([left.tensors[name] for name in pairs]):
        differences = _compare(left, right, names, [pairs[name] for name in names], inputs)
        for name, difference in zip(names, differences, strict=True):
            measured[name] = _drift(left.tensors[name], difference, _inherited(name, left.tensors, measured))
        if progress is not None:
            progress(len(measured), len(pairs))
    floor, drop, healthy = _THRESHOLDS[candidate.info.precision]
    return DriftReport(
        reference=reference.label,
        candidate=candidate.label,
        images=len(chosen),
        tensors=tuple(measured.values()),
        floor_db=floor,
        drop_db=drop,
        healthy_db=healthy,
        unmatched=len(left.tensors) - len(pairs),
    )


def _twin(name: str, graph: ExposedGraph) -> str | None:
    return next((twin for twin in (f"{name}_dq", name) if twin in graph.tensors), None)


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[str]]:
    """Names in order, so many at once as fit the budget twice."""
    group: list[str] = []
    size = 0
    for tensor in tensors:
        if group and size + tensor.elements > _BUDGET // 2:
            yield group
            group, size = [], 0
        group.append(tensor.name)
        size += tensor.elements
    if group:
        yield group


def _compare(
    left: ExposedGraph, right: ExposedGraph, names: Sequence[str], twins: Sequence[str], inputs: Sequence[Sequence[NDArray[Any]]]
) -> list[StreamingDifference]:
    differences = [StreamingDifference() for _ in names]
    for ours, theirs in zip(left.run(names, inputs[0]), right.run(twins, inputs[1]), strict=True):
        for difference, a, b in zip(differences, ours, theirs, strict=True):
            difference.update(a, b)
    return differences


def _drift(tensor: Tensor, difference: StreamingDifference, inherited: float) -> TensorDrift:
    found = difference.result()
    sqnr = -SQNR_CAP_DB if found.nan or found.sqnr_db is None else found.sqnr_db
    return TensorDrift(tensor.name, tensor.kind, sqnr, inherited, found.max_abs, found.nan)


def _inherited(name: str, tensors: dict[str, Tensor], measured: dict[str, TensorDrift]) -> float:
    """The lowest SQNR among the nearest measured tensors upstream; that of identical ones where there is none."""
    found = [SQNR_CAP_DB]
    queue, seen = list(tensors[name].sources), set[str]()
    while queue:
        source = queue.pop()
        if source in seen:
            continue
        seen.add(source)
        if source in measured:
            found.append(measured[source].sqnr_db)
        elif source in tensors:
            queue.extend(tensors[source].sources)
    return min(found)
