"""From ranges to an INT8 file that keeps its gate: calibration once for all targets, the check, and recovery where it fails."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gddctl.core.artifact.card import Card
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import DataConfig, ExportConfig, Limits, Target
from gddctl.core.reports.recovery import Recovery
from gddctl.data.dataset import SegDataset
from gddctl.data.subset import Subset
from gddctl.pipeline.datasets import open_usable

if TYPE_CHECKING:
    from gddctl.core.artifact.calibration import CalibrationRecord

log = logging.getLogger(__name__)


class Calibration:
    """The ranges of one FP32 student, and the INT8 files made with them."""

    def __init__(
        self, fp32: Artifact, data: DataConfig, config: ExportConfig, limits: Limits, *, record_path: Path, card: Card | None
    ) -> None:
        self._fp32, self._data, self._config, self._limits = fp32, data, config, limits
        self._record_path, self._card = record_path, card

    @cached_property
    def record(self) -> CalibrationRecord:
        """Ranges from training images; one record serves every target."""
        from gddctl.export.calibration.collect import calibrate

        config, split = self._config.calibration, self._data.train_split
        log.info("calibrate: %d images of split '%s', method %s", config.images, split, config.method)
        val = open_usable(self._data, self._data.val_split)
        record = calibrate(self._fp32, self._train, config, held_out=val, split=split)
        record.write(self._record_path)
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

        record = self.record
        artifact = quantize(self._fp32, record, path, target=target)
        if not (self._config.recover or table):
            return artifact, None
        subject = Subject(self._fp32, record, self._held_out, target, self._limits)
        losses = sensitivity(subject) if table else None
        if self._config.recover:
            return recover(subject, artifact, losses=losses)
        return artifact, Recovery(target, len(self._held_out), losses or (), (subject.trade(artifact, ()),))

    @cached_property
    def _train(self) -> SegDataset:
        return open_usable(self._data, self._data.train_split)

    @cached_property
    def _held_out(self) -> SegDataset:
        """Training images that set no range."""
        from gddctl.prove.subject import chosen_images

        used = {image.sha256 for image in self.record.images}
        free = Subset(self._train, [index for index in range(len(self._train)) if self._train.content_sha256(index) not in used] or [0])
        return Subset(free, chosen_images(free, self._config.calibration.scored_on))
