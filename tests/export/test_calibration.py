"""Calibration: training images only, the same ranges however they are batched, and a record that cannot be changed unseen."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.config.sections import CalibrationConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, DataError
from gddctl.data.dataset import Sample
from gddctl.export.calibration.collect import MinMaxWatcher, calibrate, choose_images, prepare
from gddctl.export.calibration.record import CalibrationRecord
from gddctl.export.graph_file import load_model, save_model

CONFIG = CalibrationConfig(images=6, seed=0)
SAME_RANGE = 1e-5  # relative: another batch size may sum a convolution in another order


@dataclasses.dataclass(frozen=True)
class Edited:
    """A dataset with one image replaced."""

    base: Any
    index: int
    sample: Sample

    @property
    def classes(self) -> Any:
        return self.base.classes

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Sample:
        return self.sample if index == self.index else self.base[index]

    def name(self, index: int) -> str:
        return self[index].name

    def files(self, index: int) -> None:
        return None

    def content_sha256(self, index: int) -> str:
        import hashlib

        return hashlib.sha256(self[index].image.tobytes()).hexdigest()


def test_the_ranges_are_those_of_the_tensors(psp: Any) -> None:
    """Against the tensors themselves, fetched as outputs and compared in numpy."""
    import onnx
    import onnxruntime

    model = load_model(psp.fp32.path)
    names = list(psp.record.ranges)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names if name != "image")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    chosen = choose_images(len(psp.train), CONFIG.images, CONFIG.seed)
    for index in chosen:
        batch = prepare([psp.train[index].image], psp.fp32.info)
        values = dict(zip([name for name in names if name != "image"], session.run(None, {"image": batch}), strict=True))
        for name, value in {**values, "image": batch}.items():
            low[name], high[name] = min(low[name], float(value.min())), max(high[name], float(value.max()))
    for name, (lowest, highest) in psp.record.ranges.items():
        assert lowest == pytest.approx(low[name], rel=SAME_RANGE, abs=1e-6)
        assert highest == pytest.approx(high[name], rel=SAME_RANGE, abs=1e-6)
    assert [image.name for image in psp.record.images] == [psp.train.name(index) for index in chosen]


def test_calibrating_again_gives_the_same_record(psp: Any) -> None:
    assert calibrate(psp.fp32, psp.train, CONFIG, held_out=psp.val).digest == psp.record.digest


def test_the_batch_size_changes_nothing(psp: Any) -> None:
    record = calibrate(psp.fp32, psp.train, CONFIG, held_out=psp.val, batch=4)
    assert record.images == psp.record.images
    for name, bounds in psp.record.ranges.items():
        assert record.ranges[name] == pytest.approx(bounds, rel=SAME_RANGE, abs=1e-6)


def test_the_digest_names_images_weights_and_seed(psp: Any) -> None:
    chosen = choose_images(len(psp.train), CONFIG.images, CONFIG.seed)
    old = psp.train[chosen[0]]
    image = old.image.copy()
    image[0, 0, 0] ^= 1
    edited = Edited(psp.train, chosen[0], Sample(image, old.label, old.name))
    digests = {
        psp.record.digest,
        calibrate(psp.fp32, edited, CONFIG, held_out=psp.val).digest,
        calibrate(psp.fp32, psp.train, CalibrationConfig(images=6, seed=1), held_out=psp.val).digest,
        dataclasses.replace(psp.record, weights_sha256="f" * 64).digest,
    }
    assert len(digests) == 4


def test_a_held_out_image_is_refused_by_content(psp: Any) -> None:
    """The same pixels under another name; the partner is every other test here, which passes ``held_out`` and goes through."""
    chosen = choose_images(len(psp.train), CONFIG.images, CONFIG.seed)
    leaked = psp.val[1]
    train = Edited(psp.train, chosen[2], Sample(leaked.image, leaked.label, "innocent"))
    val = Edited(psp.val, 1, leaked)
    with pytest.raises(DataError, match="'innocent' is also in the held-out split") as caught:
        calibrate(psp.fp32, train, CONFIG, held_out=val)
    assert caught.value.exit_code == 5
    assert calibrate(psp.fp32, train, CONFIG, held_out=None).images


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="the split is empty"):
        choose_images(0, 8, 0)


def test_images_are_chosen_by_seed() -> None:
    first = choose_images(100, 8, 0)
    assert first == choose_images(100, 8, 0) != choose_images(100, 8, 1)
    assert len(set(first)) == 8 and first == sorted(first)
    assert choose_images(5, 8, 0) == [0, 1, 2, 3, 4]


def test_nan_is_refused_where_it_arises(psp: Any, tmp_path: Path) -> None:
    """One NaN in one bias: a ReLU after it may hide it from a minimum."""
    import onnx

    model = load_model(psp.fp32.path)
    bias = next(item for item in model.graph.initializer if item.name.endswith("layer2.0.conv1.weight_bias"))
    value = onnx.numpy_helper.to_array(bias).copy()
    value[3] = np.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(value, bias.name))
    save_model(model, psp.fp32.info, tmp_path / "nan.onnx")
    broken = dataclasses.replace(psp.fp32, path=tmp_path / "nan.onnx", sha256=sha256_file(tmp_path / "nan.onnx"))
    with pytest.raises(ArtifactError, match="NaN or infinity in tensor"):
        calibrate(broken, psp.train, CONFIG, held_out=None)


def test_only_an_fp32_logits_graph_is_watched(psp: Any) -> None:
    for wrong in (psp.fp32_deploy, psp.int8):
        with pytest.raises(ArtifactError, match="watches an fp32 logits graph"):
            calibrate(wrong, psp.train, CONFIG, held_out=None)


def test_the_record_survives_a_file_and_shows_tampering(psp: Any, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    psp.record.write(path)
    assert CalibrationRecord.read(path) == psp.record
    value = json.loads(path.read_text())
    value["images"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match="changed after calibration"):
        CalibrationRecord.read(path)
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(ArtifactError, match="not readable"):
        CalibrationRecord.read(path)


def test_what_is_watched_is_what_is_quantised(psp: Any) -> None:
    """As many tensors as the INT8 graph has activation codes; the watcher keeps two numbers for each and nothing else."""
    watcher = MinMaxWatcher(psp.fp32)
    watcher.observe(prepare([psp.train[0].image], psp.fp32.info))
    kept = [value for value in vars(watcher).values() if isinstance(value, np.ndarray)]
    assert len(watcher.ranges()) == len(psp.record.ranges)
    assert sum(value.size for value in kept) == 2 * len(psp.record.ranges)
