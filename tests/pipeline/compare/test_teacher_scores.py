"""A teacher's score in the table is of the cells' images: its card's where they are the same, else measured; never of others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gddctl.core.artifact.card import CARD_NAME, Card
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.load import load_config
from gddctl.core.config.sections import Architecture, RunConfig
from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_text
from gddctl.core.reports.comparison import Teacher
from gddctl.pipeline.compare.methods import compared_methods
from gddctl.pipeline.compare.result import _protocol_if_other
from gddctl.pipeline.compare.teacher_scores import SCORE, measure_score, order_score, score_of
from gddctl.pipeline.compare.teachers import described, planned_teacher
from gddctl.pipeline.judging import evaluate_on, evaluate_teacher_on
from tests.conftest import SIZE

MakeBundle = Callable[[Architecture], Path]


def rewrite(bundle: Path, card: Card) -> None:
    write_text(bundle / CARD_NAME, card.model_dump_json())


@pytest.fixture
def teacher(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    """A bundle whose card has a score on its own drawn scenes, and took 70 s to train."""
    bundle = tmp_path / "teacher"
    shutil.copytree(make_bundle("pspnet"), bundle)
    card = read_card(bundle)
    report = evaluate_on(bundle, card.data, split="val")
    training = card.training.model_copy(update={"iterations": 5, "seconds": 70.0})
    rewrite(bundle, card.model_copy(update={"evaluation": report.to_json(), "training": training}))
    return bundle


def config(teacher: Path, *settings: str) -> RunConfig:
    scenes = (
        f"data.preprocess.size=[{SIZE[0]}, {SIZE[1]}]",
        f"data.synthetic={{train_images: 24, val_images: 4, height: {SIZE[0]}, width: {SIZE[1]}}}",
    )
    return load_config(None, [*scenes, "train.device=cpu", "train.batch_size=3", f"teacher.bundle={teacher}", *settings])


def shown(settings: RunConfig, out: Path) -> Teacher:
    (cwd,) = (each for each in compared_methods(["cwd"], settings.compare) if each.distils)
    plan = planned_teacher(settings, cwd, out)
    assert plan is not None
    return described(settings, plan, out)[0]


def test_the_cards_score_stands_where_it_is_of_the_same_images_whatever_size_they_are_fed_with(teacher: Path, tmp_path: Path) -> None:
    known = read_card(teacher).evaluation
    assert known is not None
    for size in ("[64, 96]", "[96, 128]"):
        other = config(teacher, f"data.preprocess.size={size}")
        score = score_of(other, teacher, tmp_path)
        assert score is not None and score.miou == known["miou"] and order_score(other, teacher, tmp_path) is None
    found = shown(config(teacher), tmp_path)
    assert (found.miou, found.seconds, found.protocol) == (known["miou"], 70.0, known["protocol"]), "its own training is told, given or not"
    assert _protocol_if_other(found, known["protocol"]).protocol == "" and _protocol_if_other(found, "flip").protocol == found.protocol


def test_on_other_images_it_is_measured_once_and_until_then_nothing_is_claimed(teacher: Path, tmp_path: Path) -> None:
    other = config(teacher, "data.synthetic.seed=99", "data.synthetic.val_images=6", "data.preprocess.size=[32, 48]")
    assert score_of(other, teacher, tmp_path) is None and shown(other, tmp_path).miou is None
    order = order_score(other, teacher, tmp_path)
    assert order is not None
    measure_score(read_json(order), order.parent)
    score = score_of(other, teacher, tmp_path)
    assert score is not None and order_score(other, teacher, tmp_path) is None
    honest = evaluate_on(teacher, other.data, split="val")
    assert score.miou == pytest.approx(honest.miou) and (score.images, score.protocol) == (6, honest.protocol)
    assert f"{SIZE[0]}x{SIZE[1]}" in score.protocol, "with the input size of its own card"
    assert order_score(config(teacher, "data.synthetic.seed=98"), teacher, tmp_path) is not None, "those are others again"

    write_text(order.parent / SCORE, "{}")
    with pytest.raises(ArtifactError, match=SCORE):
        score_of(other, teacher, tmp_path)


def test_other_weights_have_another_score(teacher: Path, make_bundle: MakeBundle, tmp_path: Path) -> None:
    other = config(teacher, "data.synthetic.seed=99")
    first = order_score(other, teacher, tmp_path)
    second = order_score(config(teacher, "data.synthetic.seed=99"), make_bundle("deeplabv3"), tmp_path)
    assert first is not None and second is not None and first != second


def test_what_no_training_of_ours_made_has_no_time(teacher: Path, tmp_path: Path) -> None:
    card = read_card(teacher)
    rewrite(teacher, card.model_copy(update={"training": card.training.model_copy(update={"iterations": 0, "seconds": 0.0})}))
    assert shown(config(teacher), tmp_path).seconds is None


def test_a_teacher_that_names_the_classes_in_another_order_is_scored_on_them_as_it_teaches_them(teacher: Path, tmp_path: Path) -> None:
    card = read_card(teacher)
    turned = card.classes.model_copy(update={"classes": card.classes.classes[::-1]})
    rewrite(teacher, card.model_copy(update={"classes": turned, "evaluation": None}))
    settings = config(teacher)
    assert shown(settings, tmp_path).miou is None, "no card tells it"
    order = order_score(settings, teacher, tmp_path)
    assert order is not None
    measure_score(read_json(order), order.parent)
    score, straight = shown(settings, tmp_path).miou, card.evaluation
    assert straight is not None and score == pytest.approx(evaluate_teacher_on(teacher, settings.data, split="val").miou)
    assert score != pytest.approx(straight["miou"]), "its names count, not their places"
