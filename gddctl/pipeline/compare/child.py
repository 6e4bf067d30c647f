"""``python -m gddctl.pipeline.compare.child PARENT ORDER.json``: one training, cell, score or measurement, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddctl.core.errors import GddctlError, Interrupted, RunFailed
from gddctl.core.files import read_json, write_json
from gddctl.core.lifeline import end_with_parent

if TYPE_CHECKING:
    from gddctl.distill.job import TrainJob
    from gddctl.distill.progress import Reporter

FAILURES = "failures"  # in the order's folder: what the process died of
PEAK = "peak.json"
MEASURED = "measured.json"


def main() -> int:
    """Do the order; what went wrong is left in a file for the parent. Returns the exit code."""
    parent, path = int(sys.argv[1]), Path(sys.argv[2])
    end_with_parent(parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from gddctl.distill.relay import RelayReporter, write_failure

    try:
        _do(read_json(path), path.parent, RelayReporter(sys.stdout))
    except GddctlError as error:
        write_failure(path.parent / FAILURES, 0, error)
        return error.exit_code
    except KeyboardInterrupt:
        write_failure(path.parent / FAILURES, 0, Interrupted("stopped"))
        return Interrupted.exit_code
    return 0


def _do(order: dict[str, Any], folder: Path, reporter: Reporter) -> None:
    from gddctl.core.config.load import parse
    from gddctl.distill.job import TrainJob

    match order["what"]:
        case "train":
            _train(parse(TrainJob, order["job"]), folder, reporter)
        case "cell":
            job = parse(TrainJob, order["job"])
            _train(job, folder, reporter)
            _score(job, order, folder, reporter)
        case "teacher score":
            from gddctl.pipeline.compare.teacher_scores import measure_score

            measure_score(order, folder)
        case "step times":
            _measure({name: parse(TrainJob, job) for name, job in order["jobs"].items()}, order, folder, reporter)
        case other:
            raise ValueError(f"order of an unknown kind: {other}")


def _train(job: TrainJob, folder: Path, reporter: Reporter) -> None:
    from gddctl.distill.memory import is_out_of_memory, peak_memory_mb
    from gddctl.distill.run import run_job

    try:
        run_job(job, reporter)
    except Exception as error:
        if is_out_of_memory(error):
            raise RunFailed("out of memory", remedy="use a smaller batch or crop, or fewer cells side by side") from error
        raise
    finally:
        before = _peak(folder) or 0.0  # of a sitting that was stopped
        with suppress(GddctlError):  # a full disk: what ended the training is what matters
            write_json(folder / PEAK, {"mb": max(before, peak_memory_mb())})


def _peak(folder: Path) -> float | None:
    path = folder / PEAK
    return float(read_json(path)["mb"]) if path.is_file() else None


def _score(job: TrainJob, order: dict[str, Any], folder: Path, reporter: Reporter) -> None:
    """Count image by image with the very file that the training left, and put the cell together."""
    from gddctl.core.artifact.card_io import read_card
    from gddctl.core.config.compare import ViewsConfig
    from gddctl.core.config.load import parse
    from gddctl.core.reports.comparison import Cell
    from gddctl.data.score import ConfusionMatrix
    from gddctl.distill.places import pick_device
    from gddctl.pipeline.compare.cell_files import write_cell, write_counts
    from gddctl.pipeline.compare.learning import learning_of
    from gddctl.pipeline.datasets import open_usable
    from gddctl.prove.evaluate import protocol_of
    from gddctl.prove.per_image import image_counts
    from gddctl.prove.views import views_of
    from gddctl.runtime.open import open_runtime

    asked = parse(ViewsConfig, order["views"], "compare.views")
    views = views_of(asked)
    dataset = open_usable(job.data, job.data.val_split)
    device = pick_device(job.train)
    threads = job.train.threads or int(os.environ.get("OMP_NUM_THREADS", "0")) or None  # our share, where cells run side by side
    with open_runtime(job.bundle, device=device, threads=threads) as runtime:
        protocol = protocol_of(runtime.info, views, judged=len(dataset), total=len(dataset))
        if not views.once:  # which may take minutes
            reporter.note(f"scoring {len(dataset)} images: {protocol}")
        counts = image_counts(runtime, dataset, batch=job.train.batch_size, views=views)
        environment = runtime.environment()
    whole = ConfusionMatrix(len(dataset.classes))
    whole.matrix += counts.sum(axis=0)
    card = read_card(job.bundle)
    learnt = learning_of(folder / "metrics.jsonl", job.train.batch_size)
    cell = Cell(
        method=order["method"],
        seed=job.seed,
        iterations=job.train.iterations,
        state="done",
        miou=whole.scores().miou,
        seconds=learnt.seconds,
        step_seconds=learnt.step_seconds,
        peak_memory_mb=_peak(folder),
        extra_parameters=card.training.method_parameters or 0,
        curve=learnt.curve,
    )
    write_counts(folder, counts, [dataset.name(index) for index in range(len(dataset))], asked)
    write_cell(folder, cell, asked, protocol=protocol, images=len(dataset), device=device, environment=environment)


def _measure(jobs: dict[str, TrainJob], order: dict[str, Any], folder: Path, reporter: Reporter) -> None:
    from gddctl.distill.step_times import measure_steps

    found = measure_steps(jobs, folder / "checkpoints", blocks=order["blocks"], block_steps=order["block_steps"], note=reporter.note)
    write_json(folder / MEASURED, asdict(found))


if __name__ == "__main__":
    sys.exit(main())
