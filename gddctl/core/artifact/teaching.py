"""Where a dataset's classes are among the logits of a teacher's bundle."""

from __future__ import annotations

from collections.abc import Sequence

from gddctl.core.artifact.card import Card
from gddctl.core.class_match import match_classes
from gddctl.core.classes import ClassTable
from gddctl.core.errors import ArtifactError


def class_order(card: Card, classes: ClassTable, *, who: str, drop: bool) -> tuple[int, ...] | None:
    """For each of ``classes``, in order, its channel of the teacher's logits; None: they are all its channels, in its order.

    A network's classes are matched by name, as an imported one's are. A teacher that reads the label knows classes by their ids: its
    own must be the dataset's, in the same order.

    Args:
        card: the teacher's.
        classes: the dataset's.
        who: the teacher, as the message names it.
        drop: leave out classes that only the teacher has, instead of refusing it.

    Raises:
        ArtifactError: they do not match; the message lists both.
    """
    theirs, ours = card.classes.names, classes.names
    if theirs == ours:
        return None  # also where two names differ in case alone, which no match by name could tell apart
    if card.kind != "network":
        raise ArtifactError(
            f"{who} is of kind '{card.kind}' and reads the ids of labels: its classes, {len(theirs)} ({', '.join(theirs)}), are not the "
            f"dataset's in the same order, {len(ours)} ({', '.join(ours)})",
            remedy="make one on this dataset, or take a teacher that sees images alone: its classes are matched by name",
        )
    order = match_classes(theirs, ours, who=who, drop=drop, bundle=True)
    return None if order == tuple(range(len(theirs))) else order


def left_out(card: Card, order: Sequence[int] | None) -> tuple[str, ...]:
    """The teacher's classes that ``order`` does not name."""
    return () if order is None else tuple(name for index, name in enumerate(card.classes.names) if index not in order)
