"""A teacher's classes found among a dataset's by name: case, spaces and underscores do not matter, nothing else is guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gddctl.core.errors import ArtifactError


def match_classes(theirs: Sequence[str], ours: Sequence[str], *, who: str, drop: bool = False, bundle: bool = False) -> tuple[int, ...]:
    """For each of our classes, in order, the index of the same class among theirs.

    Args:
        theirs: the teacher's class names, in the order of its logits.
        ours: the dataset's, in the order of its train ids.
        who: the teacher, as the message names it.
        drop: leave out classes that only the teacher has, instead of refusing it.
        bundle: the teacher is a bundle, whose card names its classes; else it is being imported, and settings may name them.

    Raises:
        ArtifactError: a class of ours is missing, or the teacher has more and ``drop`` is not set; the message lists both. Or names of
            one side are the same but for what does not matter.

    >>> match_classes(["sky", "Traffic_Light", "road"], ["road", "traffic light", "sky"], who="teacher")
    (2, 1, 0)
    """
    places = {_plain(name): index for index, name in enumerate(theirs)}
    wanted = {_plain(name) for name in ours}
    for place, names in ((who, theirs), ("the dataset", ours)):
        if twice := _twice(names):
            raise ArtifactError(
                f"{place}: class names that are the same but for case, spaces and underscores: {', '.join(twice)}",
                remedy="give each class a name of its own",
            )
    missing = [name for name in ours if _plain(name) not in places]
    extra = [name for name in theirs if _plain(name) not in wanted]
    if missing or (extra and not drop):
        raise ArtifactError(
            f"{who} knows {len(theirs)} classes ({', '.join(theirs)}) and the dataset has {len(ours)} ({', '.join(ours)}); "
            f"only in the dataset: {', '.join(missing) or 'none'}; only in the teacher: {', '.join(extra) or 'none'}",
            remedy=_remedy(missing=bool(missing), bundle=bundle),
        )
    return tuple(places[_plain(name)] for name in ours)


def _remedy(*, missing: bool, bundle: bool) -> str:
    if missing and bundle:
        return "use a teacher that knows them; where the same class only has another name, call it alike in the dataset's classes.yaml"
    if missing:
        return "where the same class only has another name, list the names in the order of its logits as teacher.external.classes"
    return (
        f"to leave those out set teacher.{'' if bundle else 'external.'}drop_classes: true; the softmax is then over the rest, so that "
        "where the teacher sees a dropped class it names the likeliest of the others"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "", name).casefold()


def _twice(names: Sequence[str]) -> list[str]:
    plain = [_plain(name) for name in names]
    return [name for name, short in zip(names, plain, strict=True) if plain.count(short) > 1]
