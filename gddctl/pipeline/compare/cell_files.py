"""What a cell leaves in its folder: ``order.json`` before, ``cell.json`` and ``counts.npz`` after.

The two after are the score of one training by one way of looking at the images. Scores by other views than the whole image once stand
beside them, under names of their own: a table reads those of its own views alone, and going back to views of before costs nothing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.config.compare import ViewsConfig
from gddctl.core.config.load import digest_of, to_settings
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import atomic_path, read_json, write_json
from gddctl.core.reports.comparison import Cell
from gddctl.core.workspace import differing_keys

CELL_SCHEMA = 1
ORDER, CELL, COUNTS = "order.json", "cell.json", "counts.npz"
ONCE = ViewsConfig()


def scored_name(name: str, views: ViewsConfig) -> str:
    """What ``CELL`` or ``COUNTS`` is called of these views.

    >>> scored_name(CELL, ViewsConfig()), scored_name(CELL, ViewsConfig(flip=True))
    ('cell.json', 'cell-12aeb12a.json')
    """
    path = Path(name)
    return name if views == ONCE else f"{path.stem}-{digest_of(views)[:8]}{path.suffix}"


def write_cell(folder: Path, cell: Cell, views: ViewsConfig = ONCE, **more: Any) -> None:
    """Write ``cell.json``: the cell, and what else is worth keeping with it."""
    write_json(folder / scored_name(CELL, views), {"schema": CELL_SCHEMA, **cell.to_json(), "views": to_settings(views), **more})


def read_cell(folder: Path, views: ViewsConfig = ONCE) -> tuple[Cell, dict[str, Any]] | None:
    """The cell and everything in its file; None where these views have none.

    Raises:
        ArtifactError: the file is damaged or of a later version.
    """
    path = folder / scored_name(CELL, views)
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        if value["schema"] > CELL_SCHEMA:
            raise ArtifactError(f"{path}: schema {value['schema']}, this version reads up to {CELL_SCHEMA}")
        return Cell.from_json(value), value
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: not a cell of a comparison ({error!r})", remedy="remove it: the cell is finished anew") from error


def write_counts(folder: Path, counts: NDArray[np.int64], names: Sequence[str], views: ViewsConfig = ONCE) -> None:
    """Write ``counts.npz``: ``counts`` (images, K, K), rows = label, columns = prediction, and ``names`` of the images."""
    with atomic_path(folder / scored_name(COUNTS, views)) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, counts=counts, names=np.array(names))


def read_counts(folder: Path, views: ViewsConfig = ONCE) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """What :func:`write_counts` wrote.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = folder / scored_name(COUNTS, views)
    try:
        with np.load(path) as stored:
            return np.asarray(stored["counts"], np.int64), tuple(str(name) for name in stored["names"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{path}: not readable as counts of a cell ({error})",
            remedy=f"remove {folder / scored_name(CELL, views)}: the cell is scored anew",
        ) from error


def require_same_training(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse a cell whose name once meant another training.

    Raises:
        UsageError: names the settings that differ.
    """
    path = folder / ORDER
    if not path.is_file():
        return
    known = read_json(path).get("identity")
    if isinstance(known, dict) and known != identity:
        raise UsageError(
            f"{folder}: a cell of that name was trained with other settings: {', '.join(differing_keys(known, identity)[:8])}",
            remedy="give the method another label, or choose another --out",
        )
