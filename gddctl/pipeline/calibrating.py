"""From ranges to an INT8 file that keeps its gate: calibration once for all targets, the check, and recovery where it fails."""

from __future__ import annotations

import logging
import shutil
from functools import cached_property
from pathlib import Path

from gddctl.core.artifact.calibration import CalibrationRecord
from gddctl.core.artifact.card import Card
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import DataConfig, ExportConfig, Limits, Target
from gddctl.core.reports.recovery import Recovery
from gddctl.data.dataset import SegDataset
from gddctl.data.subset import Subset
from gddctl.pipeline.datasets import open_usable

log = logging.getLogger(__name__)


class Calibration:
    """The ranges of one FP32 student, and the INT8 files made with them.

    Args:
        fp32: the student's FP32 logits file.
        data: where training images come from.
        config: what to make.
        limits: the INT8 gate.
        path: of the record; one that still holds is used again.
        card: of the bundle, which may carry ranges that it was trained with; None for a file without one.
    """

    def __init__(self, fp32: Artifact, data: DataConfig, config: ExportConfig, limits: Limits, *, path: Path, card: Card | None) -> None:
        self._fp32, self._data, self._config, self._limits = fp32, data, config, limits
        self._path, self._card = path, card

    @cached_property
    def record(self) -> CalibrationRecord:
        """Ranges from training images; one record serves every target that the card has no trained ranges for."""
        from gddctl.export.calibration.collect import calibrate_or_reuse

        config, split = self._config.calibration, self._data.train_split
        log.info("calibrate: up to %d images of split '%s', method %s", config.images, split, config.method)
        record = calibrate_or_reuse(
            self._path,
            self._fp32,
            self._train,
            config,
            held_out=self._val,
            split=split,
            target=next((target for target in self._config.targets if target not in ("any", "ort-cuda")), "ort-cpu"),
            progress=lambda done, of: log.debug("calibrate: step %d of %d", done, of),
        )
        for method, score in record.scores.items():
            kept = ", kept" if method == record.kept else ""
            log.info("calibrate: %-10s agreement %.3f %%, SQNR %.1f dB%s", method, 100 * score.agreement, score.sqnr_db, kept)
        return record

    def quantised(self, target: Target, path: Path, *, table: bool) -> tuple[Artifact, Recovery | None]:
        """The INT8 file for ``target`` at ``path``, and what its gate said on held-out training images.

        Args:
            target: whose kernels it is for.
            path: the .onnx file to write.
            table: also make the table of losses by block where the gate passes.
        """
        from gddctl.export.int8 import quantize
        from gddctl.export.recover import Subject, recover, sensitivity

        trained = self._trained(target)
        record, limits = trained or self.record, self._limits
        if trained is not None:
            trained.write(self._path.with_name(f"{self._path.stem}-{target}.json"))
            # It was trained to answer through the rounding: its own float form is no longer what it should agree with, the labels are.
            limits = Limits(max_miou_drop=limits.max_miou_drop, max_class_drop=limits.max_class_drop)
        artifact = quantize(self._fp32, record, path, target=target)
        if not (self._config.recover or table):
            return artifact, None
        images = self._held_out(record)
        if not len(images):
            log.warning("int8 for %s: no training image was left to judge on, so its gate was not checked here", target)
            return artifact, None
        subject = Subject(self._fp32, record, images, target, limits)
        losses = sensitivity(subject) if table else None
        if self._config.recover:
            return recover(subject, artifact, losses=losses)
        return artifact, Recovery(target, len(images), losses or (), (subject.trade(artifact, ()),))

    def _trained(self, target: Target) -> CalibrationRecord | None:
        from gddctl.export.calibration.from_card import record_from_card

        record = record_from_card(self._card, target) if self._card is not None else None
        if record is not None:
            log.info("calibrate: the card carries ranges trained for %s; nothing to calibrate", target)
        return record

    @cached_property
    def _train(self) -> SegDataset:
        return open_usable(self._data, self._data.train_split)

    @cached_property
    def _val(self) -> SegDataset:
        return open_usable(self._data, self._data.val_split)

    def _held_out(self, record: CalibrationRecord) -> Subset:
        """Training images that set no range, and none of the val split: those that the record set aside, which a trained one did not."""
        from gddctl.export.calibration.images import held_out_images, select_images

        if record.scored_on:
            return held_out_images(self._train, record)
        return Subset(self._train, select_images(self._train, self._config.calibration, held_out=self._val).held_out)


def bring_record(published: Path, path: Path) -> None:
    """Let an export use the record of an earlier one, where it still holds."""
    if published.is_file() and not path.exists():
        shutil.copyfile(published, path)
