"""Does a candidate answer like its reference: models run over the same real images, each image once, and compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gddctl.core.classes import require_same_classes
from gddctl.core.config.sections import Limits
from gddctl.core.errors import ArtifactError
from gddctl.core.reports.parity import Rung
from gddctl.data.dataset import Sample, SegDataset
from gddctl.prove.comparison import Answer, Comparison, Truth
from gddctl.prove.evaluate import checked_label
from gddctl.prove.predict import network_input
from gddctl.prove.progress import Progress
from gddctl.prove.subject import chosen_images, label_of
from gddctl.runtime.protocol import Runtime

Answering = Callable[[int, Sample], Answer]  # (index in the dataset, sample) -> what the model says


@dataclass(frozen=True)
class Pair:
    """Two of the models that answer, by their keys."""

    reference: str
    candidate: str
    logits: bool  # whether both give logits


def parity(
    reference: Runtime,
    candidate: Runtime,
    dataset: SegDataset,
    limits: Limits,
    *,
    max_images: int | None = None,
    progress: Progress | None = None,
) -> Rung:
    """Compare ``candidate`` with ``reference`` on the images of ``dataset``.

    Two logits graphs are compared as evaluation scores them, as soon as one of the two is a deploy graph both are taken as masks;
    see :class:`gddctl.prove.comparison.Comparison`.

    Args:
        reference: the model to trust.
        candidate: the model to test.
        dataset: labelled images; agreement counts labelled pixels only.
        limits: what the rung is held to.
        max_images: compare on this many images only, spread evenly.
        progress: called with (done, of) images after each.

    Raises:
        ArtifactError: classes or preprocessing of the two differ, or the reference itself answers with NaN.
    """
    require_comparable(reference, candidate)
    require_same_classes(candidate.info.classes, dataset.classes, who=f"model '{candidate.info.name}'")
    indices = chosen_images(dataset, max_images)
    pair = Pair("reference", "candidate", gives_logits(reference, candidate))
    answering = {"reference": answering_of(reference), "candidate": answering_of(candidate)}
    (comparison,) = compare([pair], answering, dataset, indices, progress=progress)
    return comparison.rung(reference, candidate, limits, images=len(indices))


def compare(
    pairs: Sequence[Pair],
    answering: Mapping[str, Answering],
    dataset: SegDataset,
    indices: Sequence[int],
    *,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Compare every pair on the images at ``indices``; a model that stands in many pairs answers each image once.

    Raises:
        ArtifactError: a reference answers with NaN.
        DataError: a label of another size than its image.
    """
    comparisons = [Comparison(len(dataset.classes), logits=pair.logits) for pair in pairs]
    asked = dict.fromkeys(key for pair in pairs for key in (pair.reference, pair.candidate))
    for done, index in enumerate(indices, start=1):
        sample = dataset[index]
        truth = Truth(sample.name, checked_label(sample))
        said = {key: answering[key](index, sample) for key in asked}
        for pair, comparison in zip(pairs, comparisons, strict=True):
            comparison.take(truth, said[pair.reference], said[pair.candidate])
        if progress is not None:
            progress(done, len(indices))
    return comparisons


def answering_of(runtime: Runtime) -> Answering:
    """A model asked with the dataset's own pixels, as evaluation asks it: one image at a time, as it will run."""

    def answer(index: int, sample: Sample) -> Answer:
        array, geometry = network_input(sample.image, runtime.info)
        return Answer(runtime.run(array[None])[0], geometry)

    return answer


def gives_logits(reference: Runtime, candidate: Runtime) -> bool:
    """Whether there are logits on both sides."""
    return reference.info.graph == candidate.info.graph == "logits"


def require_comparable(reference: Runtime, candidate: Runtime) -> None:
    """Both models have the same classes and see the same pixels.

    Raises:
        ArtifactError: they do not.
    """
    left, right = reference.info, candidate.info
    if left.classes.names != right.classes.names:
        raise ArtifactError(
            f"'{label_of(reference)}' has the classes ({', '.join(left.classes.names)}) "
            f"and '{label_of(candidate)}' ({', '.join(right.classes.names)})",
            remedy="compare two files made from the same student",
        )
    if left.preprocess != right.preprocess:
        before, after = left.preprocess.model_dump(), right.preprocess.model_dump()
        apart = ", ".join(f"{key} {before[key]} and {after[key]}" for key in before if before[key] != after[key])
        raise ArtifactError(
            f"'{label_of(reference)}' and '{label_of(candidate)}' prepare images differently: {apart}",
            remedy="compare two files made from the same student with the same input size",
        )
