"""The training loop: steps, validations and checkpoints, from wherever the last checkpoint left off."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import cast

import torch
from lightning_fabric import Fabric

from gddctl.core.errors import Interrupted
from gddctl.core.reports.assisted import BLIND_MIOU, WITH_PLANE, WITHOUT_PLANE
from gddctl.distill.agree import Agreement, Verdict, agreed_fault, gone_wrong
from gddctl.distill.assemble import Parts
from gddctl.distill.compiling import uncompiled
from gddctl.distill.job import TrainJob
from gddctl.distill.launch import stop_signals
from gddctl.distill.methods.protocol import Distiller
from gddctl.distill.pace import Pace
from gddctl.distill.pacing import paced_in
from gddctl.distill.progress import Reporter, StepReport
from gddctl.distill.records import Records
from gddctl.distill.resume import Checkpoints, Position
from gddctl.distill.seeds import step_seed
from gddctl.distill.snapshot import Snapshot, not_finite, snapshot
from gddctl.distill.step import set_lr
from gddctl.distill.stopping import StopRequest
from gddctl.models.protocol import Batch


class Loop:
    """One sitting of a training in this process. Rank 0 alone writes and reports.

    Args:
        job: its settings.
        fabric: launched.
        parts: built, and restored to ``position``.
        position: where the training stands; updated in place.
        checkpoints: where states go.
        records: where numbers go; None in all processes but the first.
        reporter: who is told.
    """

    def __init__(
        self,
        job: TrainJob,
        fabric: Fabric,
        parts: Parts,
        position: Position,
        checkpoints: Checkpoints,
        records: Records | None,
        reporter: Reporter,
    ) -> None:
        self._job, self._train, self._fabric, self._parts = job, job.train, fabric, parts
        self._position, self._checkpoints, self._records, self._reporter = position, checkpoints, records, reporter
        self._pace = Pace(position.sums, position.summed_steps)
        self._saved = position.step  # what was begun anew has no checkpoint, and stands at 0
        self._agreement = Agreement(fabric.world_size, lag=1 if fabric.device.type == "cuda" else 0, kept=lambda: self._saved)
        self._norms: dict[int, torch.Tensor] = {}
        self._paced = paced_in(parts.distiller)
        self._before, self._began = position.seconds, time.monotonic()
        limit = self._train.time_limit
        self._ended = position.step >= self._train.iterations or (limit is not None and position.seconds >= limit)
        self._stopping = False

    def run(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
            RunFailed: NaN, or the disk is full; what checkpoints there are stand.
        """
        source = self._parts.batches.run(self._position.step, self._train.iterations)
        self._parts.wrapped.train()
        with closing(source), StopRequest(stop_signals()) as stop:
            while True:
                if self._validation_due():
                    with uncompiled() if self._train.compile else nullcontext():
                        self._validate(stop)
                if self._checkpoint_due():
                    self._save()
                if self._stopping:
                    raise Interrupted(
                        f"{self._job.role}: stopped at step {self._position.step} of {self._train.iterations}; a checkpoint is written",
                        remedy="start the same command again to go on",
                    )
                if self._ended:
                    self._say_if_starved()
                    return
                self._step(source, stop)

    def _say_if_starved(self) -> None:
        share = self._pace.starved()
        if share is not None:
            waited, workers = f"{100 * share:.0f} % of the time", self._train.workers
            self._reporter.note(f"warning: {waited} went waiting for training images; raise train.workers (now {workers})")

    def advance(self, source: Iterator[Batch], steps: int) -> None:
        """Take ``steps`` steps and read what came of them: for measuring, where nothing is validated or saved.

        Raises:
            Interrupted: Ctrl-C or SIGTERM.
            RunFailed: NaN.
        """
        with StopRequest(stop_signals()) as stop:
            for _ in range(steps):
                self._step(source, stop)
            self._settle()
        if self._stopping:
            raise Interrupted(f"{self._job.role}: stopped")

    def _step(self, source: Iterator[Batch], stop: StopRequest) -> None:
        """One batch, one update."""
        waited = self._parts.batches.waited
        batch = next(source)
        self._pace.ran(self._train.batch_size, self._parts.batches.waited - waited)
        step = self._position.step
        self._seed(step)
        for module in self._paced:
            module.hear(step / self._train.iterations)
        parts, optimizer = self._parts, self._parts.optimizer
        set_lr(optimizer.optimizer, parts.schedule(step))
        terms: dict[str, torch.Tensor] = parts.wrapped(batch.images, batch.labels, parts.teacher, *([batch.keys] if batch.keys else []))
        self._fabric.backward(torch.stack(list(terms.values())).sum())
        self._clip(step + 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if parts.average is not None:
            parts.average.update(parts.student, step)
        self._position.step = step + 1
        for verdict in self._agreement.add(step + 1, terms, stop=stop.asked, out_of_time=self._out_of_time()):
            self._heed(verdict)
        self._reporter.tick(step + 1)
        self._ended = self._ended or self._position.step >= self._train.iterations

    def _seed(self, step: int) -> None:
        """Every draw of a step (noise, dropout) follows from its number: nothing to save, nothing to restore."""
        seed = step_seed(self._job.seed, step, self._fabric.global_rank)
        torch.default_generator.manual_seed(seed)
        if self._fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _clip(self, done: int) -> None:
        """Clip where asked to; the norm is wanted for the record in any case."""
        limit = self._train.clip_norm
        if limit is not None or self._logs(done):
            norm = self._fabric.clip_gradients(
                self._parts.wrapped, self._parts.optimizer, max_norm=limit or float("inf"), error_if_nonfinite=False
            )
            if norm is not None and self._logs(done):
                self._norms[done] = norm

    def _logs(self, done: int) -> bool:
        return done % self._train.log_every == 0 or done == self._train.iterations

    def _heed(self, verdict: Verdict) -> None:
        self._stopping = self._stopping or verdict.stop
        self._ended = self._ended or verdict.out_of_time
        self._pace.add(verdict.terms)
        if self._logs(verdict.step):
            self._log(verdict.step)

    def _log(self, step: int) -> None:
        images_per_s, data_wait = self._pace.speed()
        means, lr = self._pace.means(), self._parts.schedule(step - 1)
        norm = float(self._norms.pop(step))
        if self._records is None:
            return
        values = {**means, **self._diagnostics(), "lr": lr, "images_per_s": images_per_s, "data_wait": data_wait}
        if math.isfinite(norm):  # it is not where the gradient overflowed, which a loss scaler answers by leaving the step out
            values["grad_norm"] = norm
        self._records.train(step, {**values, "seconds": self._seconds()})
        left = (self._train.iterations - step) * self._train.batch_size / images_per_s
        if self._train.time_limit is not None:
            left = min(left, self._train.time_limit - self._seconds())
        report = StepReport(self._job.role, step, self._train.iterations, means, lr, images_per_s, data_wait, max(0.0, left))
        self._reporter.step(report)

    def _diagnostics(self) -> dict[str, float]:
        """Of the method, but what is not finite: it is read after the update, whose NaN the next step's terms will name."""
        distiller = self._parts.distiller
        found = {} if distiller is None else cast(Distiller, distiller).diagnostics()
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _validation_due(self) -> bool:
        step = self._position.step
        return step > self._position.validated and (step % self._train.val_every == 0 or self._ended)

    def _validate(self, stop: StopRequest) -> None:
        """Score the network; keep its weights when no earlier ones were better."""
        began = time.perf_counter()
        self._settle()
        if self._fabric.world_size > 1:
            for buffer in self._parts.shipped.buffers():  # running statistics are each process's own
                torch.distributed.broadcast(buffer, 0)
        # The last step's loss was finite; whether its update left the weights so, only the next step's loss would tell.
        self._require_finite({"student" if self._parts.average is None else "average": self._parts.shipped.state_dict()})
        validator, judged, blind = self._parts.validator, self._parts.judged, None
        scores = validator.scores(judged, self._fabric.autocast(), lambda: stop.asked)
        if scores is not None and validator.noising is not None:  # a label-assisted teacher: the score above is of one that is told
            blind = validator.scores(judged, self._fabric.autocast(), lambda: stop.asked, blind=True)
        if scores is None or (validator.noising is not None and blind is None):
            self._stopping = True
            return
        position = self._position
        position.validated = position.step
        if position.step == 0:
            position.start_miou = scores.miou
        better = scores.miou > position.best_miou
        if better:
            position.best_step, position.best_miou = position.step, scores.miou
            if self._records is not None:
                self._checkpoints.save_best(position.step, self._parts.shipped.plain_state_dict())
        if self._records is not None:
            numbers = {"miou": scores.miou, "aacc": scores.aacc, "macc": scores.macc, **({} if blind is None else {BLIND_MIOU: blind.miou})}
            self._records.validation(position.step, numbers, self._seconds())
            words = f"{100 * scores.miou:.2f}" + ("" if blind is None else f" {WITH_PLANE}, {100 * blind.miou:.2f} {WITHOUT_PLANE}")
            self._reporter.note(f"{self._job.role} {position.step}: val mIoU {words}" + (" (best)" if better else ""))
        self._pace.pause(time.perf_counter() - began)

    def _checkpoint_due(self) -> bool:
        step = self._position.step
        return step != self._saved and (step % self._train.checkpoint_every == 0 or self._ended or self._stopping)

    def _save(self) -> None:
        """Write a checkpoint; never one that holds NaN."""
        began = time.perf_counter()
        self._settle()
        position = self._position
        position.seconds = self._seconds()
        position.sums, position.summed_steps = dict(self._pace.sums), self._pace.steps
        parts = snapshot(self._parts)
        self._require_finite(parts)
        if self._records is not None:
            position.scaler = dict(self._fabric.strategy.precision.state_dict())
            position.metrics_offset = self._records.settle()
            self._checkpoints.save(position, parts, self._job.identity())
        self._saved = position.step
        self._pace.pause(time.perf_counter() - began)

    def _require_finite(self, state: Snapshot) -> None:
        """Before ``state`` is judged or kept; in every process, all of which stop alike.

        Raises:
            RunFailed: names the step and a tensor that holds NaN or Inf.
        """
        fault = agreed_fault(not_finite(state), self._fabric.world_size, self._fabric.device)
        if fault is not None:
            raise gone_wrong(self._position.step, f"'{fault}' holds NaN or Inf after the update", kept=self._saved)

    def _settle(self) -> None:
        for verdict in self._agreement.settle():
            self._heed(verdict)

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def _out_of_time(self) -> bool:
        """Only the first process looks at its clock; the others are told."""
        limit = self._train.time_limit
        return limit is not None and self._fabric.is_global_zero and self._seconds() >= limit
