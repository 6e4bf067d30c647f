"""What is not known about a model, and what it is known to do badly: one sentence each, computed from what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from gddctl.core.reports.model_facts import Known

LOW_IOU = 0.2  # below this share a class is as good as not found


def limits_of(known: Known) -> tuple[str, ...]:
    """The sentences; there is always one, since nothing is ever measured for every use."""
    return (*_scores(known), *_files(known), *_always(known))


def _scores(known: Known) -> Iterator[str]:
    report = known.score
    if report is None:
        yield "Accuracy was not measured."
        return
    if known.card is not None and report.split == known.card.data.val_split:
        yield f"Scores are of '{report.split}', by which the best weights were chosen: on unseen images they may be lower."
    absent, low = report.absent, [name for name, value in report.per_class.items() if value is not None and value < LOW_IOU]
    if low:
        yield f"Hardly finds (IoU below {100 * LOW_IOU:.0f} %): {', '.join(low)}."
    if absent:
        yield f"Not measured, because no image showed them: {', '.join(absent)}."
    if report.condition:
        yield f"The scores are {report.condition}, which no user's image brings."


def _files(known: Known) -> Iterator[str]:
    if slow := [item.file for item in known.files if not known.times_of(item.sha256)]:
        yield f"Latency not measured: {', '.join(slow)}."
    if known.latency is not None and known.latency.rows:
        machines = dict.fromkeys(row.environment.get("cpu", "an unnamed machine") for row in known.latency.rows)
        yield f"Latency holds for the machine it was measured on ({', '.join(machines)}) and no other."
    unproven = [item.file for item in known.files if not known.rungs_of(item.sha256)]
    if unproven:
        yield f"Not compared with what it was made from: {', '.join(unproven)}."
    emulated = [item.file for item in known.files if any(rung.emulated for rung in known.rungs_of(item.sha256))]
    if emulated:
        yield f"Compared only under a runtime that imitates the target's arithmetic: {', '.join(emulated)}."
    failed = [item.file for item in known.files if not all(rung.passed for rung in known.rungs_of(item.sha256))]
    if failed:
        yield f"Does not keep its parity limits: {', '.join(failed)}."


def _always(known: Known) -> Iterator[str]:
    if known.source.licence == "unknown":
        yield "The licence of the weights is unknown."
    if known.card is not None and known.card.teacher is not None and known.card.teacher.licence == "unknown":
        yield "The licence of the teacher's weights is unknown."
    yield "Not measured: night, rain, snow, other cameras and places than the data shows, faults of the camera, images made to deceive."
