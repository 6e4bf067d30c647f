"""What a comparison's teacher reaches on the images of the cells: as its card says where those are the same, else measured once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gddctl.core.artifact.card import Card
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import identity_of
from gddctl.core.config.compare import ViewsConfig
from gddctl.core.config.load import parse, to_settings
from gddctl.core.config.sections import DataConfig, RunConfig, TrainConfig
from gddctl.core.digest import sha256_json
from gddctl.core.files import read_as, write_json
from gddctl.core.reports.evaluation import EvalReport
from gddctl.pipeline.compare.cell_files import ORDER

SCORE = "score.json"
_NOT_IMAGES = ("preprocess", "cache", "skip_bad")  # of the data's settings, what says nothing of which images there are


def score_of(config: RunConfig, bundle: Path, out: Path) -> EvalReport | None:
    """What is known of the teacher at ``bundle`` on the images that cells are scored on; None where it was not scored on them.

    Raises:
        ArtifactError: the card or the score is damaged.
    """
    if (known := _of_card(read_card(bundle), config)) is not None:
        return known
    path = _folder(config, bundle, out) / SCORE
    return read_as(path, EvalReport.from_json) if path.is_file() else None


def order_score(config: RunConfig, bundle: Path, out: Path, *, drop_classes: bool = False) -> Path | None:
    """Leave the order for the child that measures it, ``drop_classes`` being the teacher's setting; None where it is known."""
    if score_of(config, bundle, out) is not None:
        return None
    asked = {"data": config.data, "train": config.train, "views": config.compare.views}
    order = _folder(config, bundle, out) / ORDER
    settings = {key: to_settings(section) for key, section in asked.items()}
    write_json(order, {"what": "teacher score", "bundle": str(bundle), "drop_classes": drop_classes, **settings})
    return order


def measure_score(order: dict[str, Any], folder: Path) -> None:
    """Do the order, in the child: the teacher scored on the dataset's classes by the cells' views, with the input size of its own card.

    Raises:
        ArtifactError: the bundle is damaged, or knows other classes than the data.
        DataError: the data cannot be read.
    """
    from gddctl.distill.places import pick_device
    from gddctl.pipeline.judging import evaluate_teacher_on
    from gddctl.prove.views import views_of

    data, train = parse(DataConfig, order["data"]), parse(TrainConfig, order["train"])
    report = evaluate_teacher_on(
        Path(order["bundle"]),
        data,
        split=data.val_split,
        drop_classes=order["drop_classes"],
        device=pick_device(train),
        threads=train.threads or int(os.environ.get("OMP_NUM_THREADS", "0")) or None,  # our share, where teachers are scored side by side
        batch=train.batch_size,
        views=views_of(parse(ViewsConfig, order["views"])),
    )
    write_json(folder / SCORE, report.to_json())


def _folder(config: RunConfig, bundle: Path, out: Path) -> Path:
    identity = {"bundle": identity_of(bundle), "images": _images(config.data), "views": to_settings(config.compare.views)}
    return out / "teachers" / f"score-{sha256_json(identity)[:8]}"


def _of_card(card: Card, config: RunConfig) -> EvalReport | None:
    if card.evaluation is None or _images(card.data) != _images(config.data):
        return None
    if card.kind == "network" and config.compare.views != ViewsConfig():  # the others are shown whole images alone
        return None
    return EvalReport.from_json(card.evaluation)


def _images(data: DataConfig) -> dict[str, Any]:
    """Which images, and which of them are scored; a folder by its resolved path."""
    settings = {key: value for key, value in to_settings(data).items() if key not in _NOT_IMAGES}
    return {**settings, "root": None if data.root is None else str(data.root.resolve())}
