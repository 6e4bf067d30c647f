"""The model card as the page shows it: the facts of the student, from everything that the run knows."""

from __future__ import annotations

from gddctl.core.reports.model_card import Section, model_card
from gddctl.core.reports.model_facts import FileFacts, Known
from gddctl.report.inputs import RunFiles


def card_of(run: RunFiles) -> tuple[Section, ...]:
    """The sections; none where the run has no student yet."""
    card = run.cards.get("student")
    if card is None:
        return ()
    files = tuple(FileFacts.of_row(row) for row in run.artifacts if row.get("weights_sha256") in (None, card.weights_sha256))
    named = {item.calibration_sha256 for item in files}
    known = Known(
        card=card,
        files=files,
        scores={report.sha256: report for report in run.scores.values()},
        parity=run.parity,
        latency=run.latency,
        calibration=run.calibration if run.calibration is not None and run.calibration.digest in named else None,
    )
    return model_card(known)
