"""Ranges that a student was trained with, as the calibration record that export would else have to make."""

from __future__ import annotations

import logging

from gddctl.core.artifact.calibration import CalibrationImage, CalibrationRecord, preprocess_sha256
from gddctl.core.artifact.card import Card
from gddctl.core.config.sections import Target
from gddctl.quant.scheme import RULE_VERSION

TRAINED = "trained"  # the method's name in the record

log = logging.getLogger(__name__)


def record_from_card(card: Card, target: Target) -> CalibrationRecord | None:
    """The ranges that ``card``'s weights were trained through for ``target``; None where there are none, or none that still hold.

    They hold for that target alone: another's placement codes other tensors, whose ranges nobody trained.
    """
    trained = card.quantization
    if trained is None or trained.target != target:
        return None
    if trained.rule != RULE_VERSION:
        log.warning(
            "%s: trained through rule %d of quantisation, this version has rule %d; calibrating instead",
            card.name,
            trained.rule,
            RULE_VERSION,
        )
        return None
    return CalibrationRecord(
        method=TRAINED,
        kept=TRAINED,
        settings={},
        seed=trained.seed,
        split=card.data.train_split,
        chosen_by="seed",
        preprocess_sha256=preprocess_sha256(card.preprocess.model_dump_json()),
        weights_sha256=card.weights_sha256,
        images=tuple(CalibrationImage(image.name, image.sha256) for image in trained.images),
        scored_on=(),
        ranges=trained.ranges,
        observed=trained.observed,
    )
