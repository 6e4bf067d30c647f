"""Parity: numbers against slow references, every limit broken by a partner, logits against masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.config.sections import GatesConfig, Limits
from gddctl.core.errors import ArtifactError, DataError
from gddctl.core.reports.parity import ParityReport, Rung
from gddctl.data.dataset import Sample
from gddctl.prove.border import BORDER_PX
from gddctl.prove.comparison import CONFIDENT_MARGIN, Answer
from gddctl.prove.gates import limits_for
from gddctl.prove.parity import Answering, Pair, answering_of, compare, parity
from gddctl.prove.predict import predict_mask
from gddctl.runtime.open import open_runtime

OPEN = Limits()
GATES = GatesConfig()
SLIGHT = 0.01  # noise on logits of 0..1 that flips few pixels


def noisy(strength: float, seed: int = 5) -> Callable[[Any], Any]:
    """The image as logits with fixed noise: the same for every run, as a real candidate's error is."""

    def answer(batch: Any) -> Any:
        noise = np.random.default_rng(seed).standard_normal(batch.shape[1:]).astype(np.float32)
        return (batch + strength * noise).astype(np.float32)

    return answer


def judged(parts: Any, answer: Callable[[Any], Any], limits: Limits = OPEN, **options: Any) -> Rung:
    reference = parts.Answering(lambda batch: batch, parts.info())
    return parity(reference, parts.Answering(answer, parts.info(precision="int8")), parts.world(4, size=(20, 30)), limits, **options)


def test_the_same_model_agrees_in_everything_and_passes_the_strictest_gate(parts: Any) -> None:
    rung = judged(parts, lambda batch: batch, limits_for("fp32", GATES))
    assert (rung.agreement, rung.miou_delta_points, rung.worst_class_delta_points) == (1.0, 0.0, 0.0)
    assert (rung.sqnr_db, rung.max_abs_diff, rung.p999_abs_diff, rung.nan) == (200.0, 0.0, 0.0, 0)
    assert rung.cosine == pytest.approx(1.0)
    assert rung.passed and rung.precision == "int8" and rung.images == 4


def test_numbers_are_those_of_the_definitions(parts: Any) -> None:
    answer = noisy(0.4)
    rung = judged(parts, answer)
    world = parts.world(4, size=(20, 30))
    reference, candidate = (parts.Answering(a, parts.info()) for a in (lambda batch: batch, answer))
    same = labelled = 0
    counts = np.zeros((2, 3, 3), dtype=np.int64)
    for sample in world.samples:
        masks = [predict_mask(model, sample.image) for model in (reference, candidate)]
        for y, x in np.ndindex(sample.label.shape):
            if sample.label[y, x] != 255:
                labelled += 1
                same += masks[0][y, x] == masks[1][y, x]
                for which in (0, 1):
                    counts[which, sample.label[y, x], masks[which][y, x]] += 1
    ious = [[m[k, k] / (m[k].sum() + m[:, k].sum() - m[k, k]) for k in range(3)] for m in counts]
    deltas = [100 * (after - before) for before, after in zip(*ious, strict=True)]
    assert rung.agreement == pytest.approx(same / labelled) and 0.3 < rung.agreement < 0.999
    assert (rung.reference_miou, rung.candidate_miou) == pytest.approx((np.mean(ious[0]), np.mean(ious[1])))
    assert rung.worst_class == ("sky", "road", "car")[int(np.argmin(deltas))]
    assert rung.worst_class_delta_points == pytest.approx(min(deltas))


def test_logit_numbers_are_those_of_all_logits_at_once(parts: Any) -> None:
    world, answer = parts.world(6), noisy(SLIGHT)
    seen: list[Any] = []

    def watched(batch: Any) -> Any:
        seen.append(batch[0].astype(np.float64))
        return answer(batch)

    rung = parity(parts.Answering(lambda b: b, parts.info()), parts.Answering(watched, parts.info()), world, OPEN)
    ref = np.stack(seen)
    apart = np.stack([answer(r[None].astype(np.float32))[0] for r in ref]).astype(np.float64) - ref
    assert rung.sqnr_db == pytest.approx(10 * np.log10((ref**2).sum() / (apart**2).sum()), abs=1e-6)
    assert rung.max_abs_diff == pytest.approx(np.abs(apart).max(), rel=1e-6)
    assert rung.p999_abs_diff == pytest.approx(np.quantile(np.abs(apart), 0.999, method="inverted_cdf"), rel=0.01)


def wrong_car(batch: Any) -> Any:
    """Every eighth column's car becomes road."""
    out = batch.copy()
    out[:, 1, :, ::8] = np.maximum(out[:, 1, :, ::8], out[:, 2, :, ::8] + 0.01)
    return out


def patches(parts: Any) -> Any:
    """Images whose classes form squares of 10 pixels: some pixels lie near a border, some do not."""
    world = parts.world(4, size=(20, 30))
    for sample in world.samples:
        sample.label[:] = np.kron(np.array([[0, 1, 2], [1, 1, 255]], np.uint8), np.ones((10, 10), np.uint8))
    return world


def test_border_and_confidence_are_those_of_the_definitions(parts: Any) -> None:
    def sharp(batch: Any) -> Any:
        return (batch * 4).astype(np.float32)  # margins around CONFIDENT_MARGIN

    def blurred(batch: Any) -> Any:
        return noisy(1.5)(sharp(batch))

    world = patches(parts)
    info = parts.info(size=(20, 30))  # no resizing: logits at label size are the image's
    rung = parity(parts.Answering(sharp, info), parts.Answering(blurred, info), world, OPEN)
    near, sure = [0, 0], [0, 0]
    labelled = 0
    for sample in world.samples:
        batch = (sample.image.transpose(2, 0, 1)[None] / 255).astype(np.float32)
        first, second = sharp(batch)[0], blurred(batch)[0]
        same = first.argmax(axis=0) == second.argmax(axis=0)
        ordered = np.sort(first, axis=0)
        for y, x in np.ndindex(sample.label.shape):
            if sample.label[y, x] == 255:
                continue
            labelled += 1
            window = sample.label[max(0, y - BORDER_PX) : y + BORDER_PX + 1, max(0, x - BORDER_PX) : x + BORDER_PX + 1]
            if ((window != sample.label[y, x]) & (window != 255)).any():
                near = [near[0] + int(same[y, x]), near[1] + 1]
            if ordered[-1, y, x] - ordered[-2, y, x] >= CONFIDENT_MARGIN:
                sure = [sure[0] + int(same[y, x]), sure[1] + 1]
    assert rung.boundary_agreement == pytest.approx(near[0] / near[1]) and 0 < near[1] < labelled
    assert rung.confident_agreement == pytest.approx(sure[0] / sure[1]) and 0 < sure[1] < labelled
    assert rung.confident_share == pytest.approx(sure[1] / labelled)
    assert (rung.boundary_px, rung.confident_margin) == (BORDER_PX, CONFIDENT_MARGIN)
    assert rung.confident_agreement is not None
    assert rung.agreement < rung.confident_agreement < 1.0  # what flips is mostly what was unsure
    assert rung.boundary_agreement != pytest.approx(rung.agreement)


def test_borders_and_confidence_have_limits(parts: Any) -> None:
    info = parts.info(size=(20, 30))

    def rung(limits: Limits) -> Rung:
        loud = parts.Answering(lambda batch: batch * 9, info)
        return parity(loud, parts.Answering(lambda batch: wrong_car(batch) * 9, info), patches(parts), limits)

    free = rung(OPEN)
    near, sure = free.boundary_agreement, free.confident_agreement
    assert near is not None and sure is not None and near < 1 and sure < 1
    assert rung(Limits(min_boundary_agreement=near, min_confident_agreement=sure)).passed
    (failure,) = rung(Limits(min_boundary_agreement=near + 1e-6)).failures
    assert failure.startswith("agreement within 3 px of class borders")
    (failure,) = rung(Limits(min_confident_agreement=sure + 1e-6)).failures
    assert failure.startswith("agreement where the reference is confident")


def test_a_limit_on_what_no_image_shows_is_not_kept(parts: Any) -> None:
    world = parts.world(1)
    world.samples[0].label[:] = 0  # one class: no border
    plain = parts.Answering(lambda batch: batch * 1e-3, parts.info())  # logits below 1: nothing is confident
    rung = parity(plain, plain, world, Limits(min_boundary_agreement=0.1, min_confident_agreement=0.1))
    assert (rung.boundary_agreement, rung.confident_agreement) == (None, None)
    assert [failure.split(" not measured")[0] for failure in rung.failures] == [
        "agreement near class borders",
        "agreement where the reference is confident",
    ]


@pytest.mark.parametrize(
    ("answer", "kept", "broken", "words"),
    [
        (wrong_car, Limits(min_agreement=0.9), Limits(min_agreement=0.99), "agreement"),
        (wrong_car, Limits(max_miou_drop=10.0), Limits(max_miou_drop=1.0), "mIoU"),
        (wrong_car, Limits(max_class_drop=15.0), Limits(max_class_drop=3.0), "IoU of 'car'"),
        (noisy(SLIGHT), Limits(min_sqnr_db=30.0), Limits(min_sqnr_db=40.0), "SQNR"),
        (noisy(SLIGHT), Limits(max_abs_diff=0.1), Limits(max_abs_diff=0.001), "max |difference|"),
    ],
)
def test_each_limit_is_kept_by_one_and_broken_by_its_partner(
    parts: Any, answer: Callable[[Any], Any], kept: Limits, broken: Limits, words: str
) -> None:
    assert judged(parts, answer, kept).passed
    rung = judged(parts, answer, broken)
    (failure,) = rung.failures
    assert failure.startswith(words)
    assert not rung.passed and not ParityReport(rungs=(rung,))


def test_nan_fails_without_any_limit_and_still_gives_a_rung(parts: Any) -> None:
    def broken(batch: Any) -> Any:
        out = batch.copy()
        out[0, 0, 0, 0], out[0, 1, 2, 3], out[0, 2, 5, 5] = np.nan, np.inf, -np.inf
        return out

    rung = judged(parts, broken)
    assert rung.nan == 3 * 4
    assert rung.failures == ("12 NaN or Inf values in the output",)
    with pytest.raises(ArtifactError, match="reference answers with NaN"):
        parity(parts.Answering(broken, parts.info()), parts.Answering(lambda b: b, parts.info()), parts.world(1), OPEN)


def test_logits_against_deploy_is_no_difference_between_models(parts: Any, tmp_path: Path) -> None:
    world = parts.world(4, size=(37, 53))  # the two ways of resizing differ here: the comparison must not
    with (
        open_runtime(parts.onnx(tmp_path / "a.onnx"), threads=1) as logits,
        open_runtime(parts.onnx(tmp_path / "b.onnx", "deploy"), threads=1) as deploy,
    ):
        one_way = [predict_mask(model, world[0].image) for model in (logits, deploy)]
        rung = parity(logits, deploy, world, limits_for("fp32", GATES))
        back = parity(deploy, logits, world, OPEN)
        masks = parity(deploy, deploy, world, OPEN)
    assert (one_way[0] != one_way[1]).any()
    assert rung.agreement == back.agreement == masks.agreement == 1.0 and rung.passed
    assert (rung.sqnr_db, rung.cosine, rung.max_abs_diff, rung.p999_abs_diff) == (None, None, None, None)
    assert (rung.confident_agreement, rung.confident_margin) == (None, None) and rung.boundary_agreement == 1.0
    assert parity(logits, deploy, world, Limits(min_confident_agreement=1.0)).passed  # a mask has no margin: nothing to judge
    assert (rung.reference, rung.candidate) == ("student-fp32-any.logits", "student-fp32-any.deploy")


def test_ignored_pixels_and_images_beyond_the_limit_do_not_count(parts: Any) -> None:
    def wrong_where_ignored(batch: Any) -> Any:
        out = batch.copy()
        out[0][:, ignored] = out[0][[1, 2, 0]][:, ignored]
        return out

    sample = parts.world(1)[0]
    ignored = sample.label == 255
    plain, wrong = (parts.Answering(a, parts.info()) for a in (lambda b: b, wrong_where_ignored))
    assert parity(plain, wrong, parts.World([sample]), OPEN).agreement == 1.0
    seen: list[tuple[int, int]] = []
    assert judged(parts, noisy(SLIGHT), max_images=2, progress=lambda done, of: seen.append((done, of))).images == 2
    assert seen == [(1, 2), (2, 2)]


def test_models_that_cannot_be_compared_are_refused(parts: Any) -> None:
    plain = parts.Answering(lambda b: b, parts.info())
    with pytest.raises(ArtifactError, match=r"size \(16, 24\) and \(32, 24\)"):
        parity(plain, parts.Answering(lambda b: b, parts.info(size=(32, 24))), parts.world(1), OPEN)
    with pytest.raises(ArtifactError, match="sky, road, bus"):
        parity(plain, parts.Answering(lambda b: b, parts.info(classes=parts.classes(("sky", "road", "bus")))), parts.world(1), OPEN)
    blank = parts.world(1)[0]
    with pytest.raises(DataError, match="no labelled pixel"):
        parity(plain, plain, parts.World([Sample(blank.image, np.full_like(blank.label, 255), "void")]), OPEN)


def test_a_class_only_the_candidate_shows_is_no_worst_class(parts: Any) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[..., 0] = 255
    world = parts.World([Sample(image, np.zeros((16, 24), np.uint8), "sky")])

    def sees_a_car(batch: Any) -> Any:
        out = batch.copy()
        out[:, 2, 0, 0] = 9
        return out

    plain, other = (parts.Answering(a, parts.info()) for a in (lambda b: b, sees_a_car))
    rung = parity(plain, other, world, OPEN)
    assert rung.worst_class == "sky" and rung.worst_class_delta_points == pytest.approx(-100 / (16 * 24))


def test_the_report_reads_back(parts: Any) -> None:
    report = ParityReport(rungs=(judged(parts, noisy(SLIGHT), limits_for("int8", GATES)),))
    assert ParityReport.from_json(report.to_json()) == report


def test_each_model_answers_each_image_once_however_many_rungs_it_stands_in(parts: Any) -> None:
    asked: list[str] = []

    def watched(name: str) -> Answering:
        def answer(index: int, sample: Sample) -> Answer:
            asked.append(name)
            return answering_of(parts.Answering(noisy(SLIGHT, len(asked)), parts.info()))(index, sample)

        return answer

    pairs = [Pair("a", "b", True), Pair("a", "c", True), Pair("b", "c", True)]
    comparisons = compare(pairs, {name: watched(name) for name in "abcd"}, parts.world(3), [0, 2])
    assert len(comparisons) == 3
    assert asked == ["a", "b", "c"] * 2


@pytest.mark.parametrize(("precision", "agreement"), [("fp32", 0.9999), ("fp16", 0.995), ("int8", 0.975)])
def test_every_precision_has_its_gate(precision: Any, agreement: float) -> None:
    assert limits_for(precision, GATES).min_agreement == agreement
