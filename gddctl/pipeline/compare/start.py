"""What the students of a comparison start from, and what a reader must know of it."""

from __future__ import annotations

from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.sections import RunConfig
from gddctl.pipeline.compare.ground import HELD_OUT_WORDS, split_words


def start_notes(config: RunConfig) -> tuple[str, ...]:
    """Notes for the table on ``student.init``; what taught that bundle, or came before it, is not looked at."""
    if config.student.init is None or split_words(config.data) != HELD_OUT_WORDS:
        return ()
    card = read_card(config.student.init)
    if card.data.holdout == config.data.holdout or not card.training.iterations:
        return ()
    return ("The bundle that the students start from was trained on the held-out images too: all scores may be too good.",)
