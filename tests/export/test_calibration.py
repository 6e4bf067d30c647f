"""Calibration: ranges of every activation, the same however images are batched, and a record that cannot be changed unseen."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.calibration import CalibrationRecord, Score
from gddctl.core.config.sections import CalibrationConfig
from gddctl.core.digest import sha256_file, sha256_json
from gddctl.core.errors import ArtifactError
from gddctl.export.calibration.collect import calibrate, complete, prepare
from gddctl.export.calibration.histogram import BINS
from gddctl.export.calibration.images import select_images
from gddctl.export.calibration.methods import METHODS, range_of
from gddctl.export.calibration.observe import HistogramWatcher, RangeWatcher, choices_of, float_activations, tensors_to_code
from gddctl.export.calibration.score import Tally, best_of, score_records
from gddctl.export.graph_file import load_model, save_model
from gddctl.quant.choice import Choice

CONFIG = CalibrationConfig(images=6, seed=0, method="minmax")
SAME_RANGE = 1e-5  # relative: a fused kernel may sum in another order than one whose output is fetched
AGREES = 0.8  # share of pixels: random weights leave classes almost tied


@pytest.fixture(scope="module")
def values(psp: Any) -> dict[str, np.ndarray]:
    """Every float activation over the record's images, fetched as outputs. Shape: (images, ...) each."""
    import onnx
    import onnxruntime

    model = load_model(psp.fp32.path)
    names = [name for name in float_activations(model) if name != "image"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    places = {psp.train.name(index): index for index in range(len(psp.train))}
    batch = prepare([psp.train[places[image.name]].image for image in psp.record.images], psp.fp32.info)
    return {"image": batch, **dict(zip(names, session.run(None, {"image": batch}), strict=True))}


def test_ranges_are_those_of_the_tensors(psp: Any, values: dict[str, np.ndarray]) -> None:
    """Also where they were derived from a node's inputs."""
    assert list(psp.record.observed) == list(values)
    for name, (lowest, highest) in psp.record.observed.items():
        assert lowest == pytest.approx(float(values[name].min()), rel=SAME_RANGE, abs=1e-6), name
        assert highest == pytest.approx(float(values[name].max()), rel=SAME_RANGE, abs=1e-6), name


def test_every_float_activation_is_watched(psp: Any) -> None:
    """By the network: the image, 26 convolutions, as many again behind them, the logits; no sizes, no weights."""
    model = load_model(psp.fp32.path)
    names = float_activations(model)
    assert names[0] == "image" and names[-1] == "logits" and len(set(names)) == len(names)
    convs = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    assert convs <= set(names)
    assert not {item.name for item in model.graph.initializer} & set(names)
    assert not {node.output[0] for node in model.graph.node if node.op_type == "Shape"} & set(names)
    for choice in choices_of(model):
        assert set(choice.tensors) <= set(psp.record.ranges)


def test_histograms_are_those_of_the_tensors(psp: Any, values: dict[str, np.ndarray]) -> None:
    names = tensors_to_code(choices_of(load_model(psp.fp32.path)))
    watcher = HistogramWatcher(load_model(psp.fp32.path), psp.record.observed, names)
    watcher.observe(values["image"])
    for name, found in watcher.histograms().items():
        assert found.total == values[name].size
        scaled = np.abs(values[name].reshape(-1).astype(np.float64)) / found.width
        expected = np.bincount(np.minimum(scaled[scaled > 0].astype(int), BINS - 1), minlength=BINS)
        moved = np.abs(np.cumsum(found.below + found.above) - np.cumsum(expected)).max()
        assert moved <= 2 + 0.001 * values[name].size, name  # values on an edge, by their last digits


def test_the_batch_size_changes_nothing(psp: Any) -> None:
    """Not one digit: the digests are equal, with a last batch that is not full too."""
    config = CONFIG.model_copy(update={"method": "entropy"})
    one, four = (calibrate(psp.fp32, psp.train, config, held_out=psp.val, batch=batch) for batch in (1, 4))
    assert one.digest == four.digest


def test_calibrating_again_gives_the_same_record(psp: Any) -> None:
    assert calibrate(psp.fp32, psp.train, CONFIG, held_out=psp.val).digest == psp.record.digest


def test_methods_share_what_was_seen_and_clip_within_it(psp: Any) -> None:
    """One set of histograms for all."""
    names = tensors_to_code(choices_of(load_model(psp.fp32.path)))
    histograms = observe_twice(psp, names)
    for method in METHODS:
        clipped = 0
        for name in names:
            (low, high), (lowest, highest) = range_of(method, histograms[name]), psp.record.observed[name]
            assert lowest <= low <= high <= highest, name
            assert (low == 0.0) if lowest == 0.0 else True
            clipped += (low, high) != (lowest, highest)
        assert (clipped == 0) if method == "minmax" else (clipped >= 10), method  # none but minmax is a no-op


def observe_twice(psp: Any, names: tuple[str, ...], config: CalibrationConfig = CONFIG, observed: Any = None) -> dict[str, Any]:
    """Histograms over the images that ``config`` selects; ``observed`` is what the first showing saw of them."""
    watcher = HistogramWatcher(load_model(psp.fp32.path), observed or psp.record.observed, names)
    for index in select_images(psp.train, config).calibration:
        watcher.observe(prepare([psp.train[index].image], psp.fp32.info))
    return watcher.histograms()


def test_what_shares_a_code_shares_its_range() -> None:
    choice = Choice(tensors=("a", "b", "c"), float_convs=frozenset(), leader={"b": "a"})
    observed = {"a": (0.0, 4.0), "b": (0.0, 3.0), "c": (-1.0, 1.0), "d": (0.0, 9.0)}
    ranges = complete(observed, {"a": (0.0, 2.0), "c": (-0.5, 1.0)}, [choice])
    assert ranges == {"a": (0.0, 2.0), "b": (0.0, 2.0), "c": (-0.5, 1.0), "d": (0.0, 9.0)}


# --- auto


def test_auto_keeps_the_best_on_images_that_set_no_range(psp: Any) -> None:
    """And tells of every showing, twice each, and every scoring."""
    config = CONFIG.model_copy(update={"method": "auto", "scored_on": 3})
    seen: list[tuple[int, int]] = []
    record = calibrate(psp.fp32, psp.train, config, held_out=psp.val, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, 2 * 6 + 3) for done in range(1, 2 * 6 + 3 + 1)]
    assert (record.method, record.scored_for, len(record.scored_on)) == ("auto", "ort-cpu", 3)
    assert not {image.sha256 for image in record.images} & {image.sha256 for image in record.scored_on}
    assert set(record.scores) == set(METHODS)
    best = max(record.scores.values(), key=lambda score: (score.agreement, score.sqnr_db))
    assert record.scores[record.kept] == best
    assert best.sqnr_db > 15 and best.agreement > AGREES
    histograms = observe_twice(psp, tensors_to_code(choices_of(load_model(psp.fp32.path))), config, record.observed)
    assert {name: record.ranges[name] for name in histograms} == {name: range_of(record.kept, one) for name, one in histograms.items()}  # type: ignore[arg-type]


def test_what_does_not_run_here_is_scored_by_its_own_graph(psp: Any) -> None:
    """TensorRT's pairs, on ONNX Runtime's CPU; ranges ten times too narrow lose."""
    narrow = dataclasses.replace(psp.record, ranges={name: (low / 10, high / 10) for name, (low, high) in psp.record.ranges.items()})
    shown: list[tuple[int, int]] = []
    scores = score_records(
        psp.fp32, {"narrow": narrow, "minmax": psp.record}, psp.val, "tensorrt", progress=lambda done, of: shown.append((done, of))
    )
    assert shown == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert scores["minmax"].sqnr_db > 15 and scores["minmax"].agreement > AGREES
    assert scores["narrow"].sqnr_db < 15
    assert best_of(scores) == "minmax"


def test_the_best_is_by_agreement_then_sqnr() -> None:
    assert best_of({"a": Score(0.9, 50.0), "b": Score(0.91, 10.0)}) == "b"
    assert best_of({"a": Score(0.9, 20.0), "b": Score(0.9, 21.0)}) == "b"
    assert best_of({"a": Score(0.9, 20.0), "b": Score(0.9, 20.0)}) == "a"


def test_a_tally_by_hand() -> None:
    reference = np.array([[[[3.0, 1.0]], [[0.0, 2.0]]]], np.float32)  # classes 0, 1
    candidate = reference + np.array([[[[0.0, 2.0]], [[0.0, 0.0]]]], np.float32)  # classes 0, 0
    tally = Tally()
    tally.add(reference, candidate)
    assert tally.score().agreement == 0.5
    assert tally.score().sqnr_db == pytest.approx(10 * np.log10(14 / 4))
    tally.add(reference, candidate * np.float32(np.nan))
    assert tally.score() == Score(0.0, -200.0)
    same = Tally()
    same.add(reference, reference)
    assert same.score() == Score(1.0, 200.0)


# --- what is refused


def test_nan_is_refused_where_it_arises(psp: Any, tmp_path: Path) -> None:
    """One NaN in one bias: a ReLU after it may hide it from a minimum."""
    import onnx

    for bad in (np.nan, np.inf):
        model = load_model(psp.fp32.path)
        bias = next(item for item in model.graph.initializer if item.name.endswith("layer2.0.conv1.weight_bias"))
        value = onnx.numpy_helper.to_array(bias).copy()
        value[3] = bad
        bias.CopyFrom(onnx.numpy_helper.from_array(value, bias.name))
        save_model(model, psp.fp32.info, tmp_path / "bad.onnx")
        broken = dataclasses.replace(psp.fp32, path=tmp_path / "bad.onnx", sha256=sha256_file(tmp_path / "bad.onnx"))
        with pytest.raises(ArtifactError, match=r"NaN or infinity in tensor 'encoder.layer2.0.conv1'"):
            calibrate(broken, psp.train, CONFIG, held_out=None)


def test_only_an_fp32_logits_graph_is_watched(psp: Any) -> None:
    for wrong in (psp.fp32_deploy, psp.int8):
        with pytest.raises(ArtifactError, match="watches an fp32 logits graph"):
            calibrate(wrong, psp.train, CONFIG, held_out=None)


@pytest.mark.parametrize("bounds", [(float("nan"), 1.0), (0.0, float("inf")), (1.0, 0.0)])
def test_a_record_with_a_range_that_is_none_is_refused(psp: Any, bounds: tuple[float, float]) -> None:
    for field in ("ranges", "observed"):
        changed = {**getattr(psp.record, field), "image": bounds}
        with pytest.raises(ArtifactError, match="tensor 'image' has the range"):
            dataclasses.replace(psp.record, **{field: changed})


def test_the_record_survives_a_file(psp: Any, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    scored = dataclasses.replace(psp.record, method="auto", scored_for="tensorrt", scores={"minmax": Score(0.99, 31.5)})
    for record in (psp.record, scored):
        record.write(path)
        assert CalibrationRecord.read(path) == record


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("images", 0, "sha256"), "0" * 64),
        (("ranges", "image", 1), 99.0),
        (("seed",), 7),
        (("scores",), {"mse": {"agreement": 1, "sqnr_db": 1}}),
    ],
)
def test_a_hand_edited_record_is_refused(psp: Any, tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    path = tmp_path / "calibration.json"
    psp.record.write(path)
    whole = json.loads(path.read_text())
    part = whole
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path.write_text(json.dumps(whole))
    with pytest.raises(ArtifactError, match="changed after calibration"):
        CalibrationRecord.read(path)


def test_a_record_without_digest_or_of_another_schema_is_refused(psp: Any, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(psp.record.to_json()))
    with pytest.raises(ArtifactError, match="changed after calibration"):
        CalibrationRecord.read(path)
    for value, what in (({"schema": 1}, "schema 1, this version reads 2"), ({"schema": 2}, "not readable"), ([], "not a calibration")):
        path.write_text(json.dumps(value))
        with pytest.raises(ArtifactError, match=what) as caught:
            CalibrationRecord.read(path)
        assert caught.value.remedy == "calibrate again"


def test_nan_in_a_record_is_refused_even_with_its_digest(psp: Any, tmp_path: Path) -> None:
    value = psp.record.to_json()
    value["ranges"]["image"][0] = float("nan")
    (tmp_path / "c.json").write_text(json.dumps({**value, "digest": sha256_json(value)}))
    with pytest.raises(ArtifactError, match="tensor 'image' has the range"):
        CalibrationRecord.read(tmp_path / "c.json")


def test_memory_holds_two_numbers_a_tensor(psp: Any) -> None:
    watcher = RangeWatcher(load_model(psp.fp32.path), "psp")
    image = prepare([psp.train[0].image], psp.fp32.info)
    watcher.observe(image)
    kept = sum(value.size for value in vars(watcher).values() if isinstance(value, np.ndarray))
    assert kept <= 2 * len(watcher.ranges())
    watcher.observe(image)
    assert sum(value.size for value in vars(watcher).values() if isinstance(value, np.ndarray)) == kept
