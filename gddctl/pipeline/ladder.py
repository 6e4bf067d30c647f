"""The parity ladder of a student: every file against the one it was made from, on the same images, then raw files end to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gddctl.core.classes import require_same_classes
from gddctl.core.config.sections import GatesConfig
from gddctl.core.errors import EnvironmentMissing, UsageError
from gddctl.core.lazy import require
from gddctl.core.reports.parity import ParityReport, Rung, Skipped, Source
from gddctl.data.dataset import SegDataset
from gddctl.pipeline.costs import with_costs
from gddctl.pipeline.raw_files import answering_from_files
from gddctl.prove.gates import gate_of, limits_of_pair, without_costs
from gddctl.prove.ladder import Member, Step, steps_of
from gddctl.prove.parity import Answering, Pair, answering_of, compare, require_comparable
from gddctl.prove.progress import Progress
from gddctl.prove.subject import chosen_images, is_emulated
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Device, Runtime
from gddctl.serve.predictor import Predictor

EARLIER = "an earlier rung failed"
_FILES = "image files"


@dataclass(frozen=True)
class _Rung:
    """One rung to judge, or the reason why it cannot be."""

    step: Step
    source: Source
    obstacle: str | None = None

    @property
    def pair(self) -> Pair:
        reference, candidate = _key(self.step.reference), _key(self.step.candidate)
        logits = self.step.reference.info.graph == self.step.candidate.info.graph == "logits"
        return Pair(reference, _FILES if self.source == "files" else candidate, logits)


def climb(
    members: Sequence[Member],
    dataset: SegDataset,
    gates: GatesConfig,
    *,
    max_images: int | None = None,
    every_rung: bool = False,
    progress: Progress | None = None,
) -> ParityReport:
    """Judge the ladder of ``members``; every model answers each image once.

    Args:
        members: the files, and the bundle at the top where it is at hand.
        dataset: labelled images, the same for all rungs.
        gates: the limits by precision.
        max_images: judge on this many images only, spread evenly.
        every_rung: also judge the rungs after one that failed.
        progress: called with (done, of) images.

    Raises:
        UsageError: nothing to compare.
        ArtifactError: a file is damaged, or was not made from the others; the message names it.
    """
    steps = steps_of(members)
    if not steps:
        raise UsageError("one model is no ladder: nothing to compare", remedy="export more files: gddctl export BUNDLE --precision int8")
    with ExitStack() as stack:
        opened = {_key(member): _open(member, stack) for member in members}
        runtimes = {key: runtime for key, runtime in opened.items() if not isinstance(runtime, str)}
        rungs = list(_planned(steps, opened))
        for runtime in runtimes.values():
            require_same_classes(runtime.info.classes, dataset.classes, who=f"model '{runtime.info.name}'")
        indices = chosen_images(dataset, max_images)
        judged = [rung for rung in rungs if rung.obstacle is None]
        for rung in judged:
            require_comparable(runtimes[_key(rung.step.reference)], runtimes[_key(rung.step.candidate)])
        answering = _answering(judged, runtimes, dataset)
        comparisons = compare([rung.pair for rung in judged], answering, dataset, indices, progress=progress)
        measured: dict[int, Rung] = {}
        for rung, comparison in zip(judged, comparisons, strict=True):
            reference, candidate = runtimes[_key(rung.step.reference)], runtimes[_key(rung.step.candidate)]
            limits = limits_of_pair(reference.info, candidate.info, gates)
            plain = comparison.rung(reference, candidate, limits, images=len(indices))
            measured[id(rung)] = _finished(plain, rung, candidate.backend)
        return _report(rungs, measured, every_rung=every_rung)


def _key(member: Member) -> str:
    return str(member.path)


def _device(member: Member) -> Device:
    return "cuda" if member.kind == "engine" else "cpu"


def _open(member: Member, stack: ExitStack) -> Runtime | str:
    """The running model, or why it cannot run on this machine."""
    try:
        if member.kind == "bundle":
            require("torch", extra="train", why="running the bundle")
        return stack.enter_context(open_runtime(member.path, device=_device(member), allow_foreign_target=True))
    except EnvironmentMissing as error:
        return str(error)


def _planned(steps: Sequence[Step], opened: Mapping[str, Runtime | str]) -> Iterator[_Rung]:
    for step in steps:
        yield _Rung(step, "pixels", _obstacle(step, opened))
    # From raw files goes what would be deployed here: the last deploy graph whose arithmetic is its own.
    deployed = [step for step in steps if step.candidate.info.graph == "deploy" and _obstacle(step, opened) is None]
    honest = [step for step in deployed if not _emulated(opened[_key(step.candidate)])]
    if honest or deployed:
        yield _Rung((honest or deployed)[-1], "files")


def _obstacle(step: Step, opened: Mapping[str, Runtime | str]) -> str | None:
    reference, candidate = opened[_key(step.reference)], opened[_key(step.candidate)]
    if isinstance(candidate, str):
        return candidate
    return f"its reference {step.reference.label} does not run here: {reference}" if isinstance(reference, str) else None


def _emulated(runtime: Runtime | str) -> bool:
    return not isinstance(runtime, str) and is_emulated(runtime)


def _answering(judged: Sequence[_Rung], runtimes: Mapping[str, Runtime], dataset: SegDataset) -> dict[str, Answering]:
    found = {key: answering_of(runtime) for key, runtime in runtimes.items()}
    for rung in judged:
        if rung.source == "files":
            found[_FILES] = answering_from_files(Predictor(runtimes[_key(rung.step.candidate)]), dataset)
    return found


def _finished(rung: Rung, planned: _Rung, backend: str) -> Rung:
    """With everything that the comparison itself does not know."""
    precision = gate_of(planned.step.reference.info, planned.step.candidate.info)
    rung = replace(rung, precision=precision, source=planned.source)
    if planned.source == "files":  # the same file: what it costs was judged
        return replace(rung, limits=without_costs(rung.limits))
    return with_costs(rung, planned.step.candidate.path, backend)


def _report(rungs: Sequence[_Rung], measured: Mapping[int, Rung], *, every_rung: bool) -> ParityReport:
    """Rungs and skipped ones in order, with the way down from the top; after a failure nothing is judged."""
    done: list[Rung] = []
    skipped: list[Skipped] = []
    made = {_key(planned.step.candidate) for planned in rungs}
    tops = {_key(planned.step.reference): planned.step.reference.label for planned in rungs if _key(planned.step.reference) not in made}
    way_down = {key: (label, 0.0) for key, label in tops.items()}  # model -> the top, and how many points of mIoU from there
    for planned in rungs:
        step = planned.step
        names = (step.reference.label, f"{step.candidate.label}{', from image files' if planned.source == 'files' else ''}")
        precision = gate_of(step.reference.info, step.candidate.info)
        if planned.obstacle is not None:
            skipped.append(Skipped(*names, precision, "not run", planned.obstacle))
            continue
        rung = measured[id(planned)]
        if (above := way_down.get(_key(step.reference))) is not None:
            rung = replace(rung, top=above[0], top_delta_points=above[1] + rung.miou_delta_points)
            if planned.source == "pixels":
                way_down[_key(step.candidate)] = (above[0], above[1] + rung.miou_delta_points)
        if not every_rung and any(not earlier.passed for earlier in done):
            skipped.append(Skipped(*names, precision, "not judged", EARLIER))
        else:
            done.append(rung)
    return ParityReport(tuple(done), tuple(skipped))
