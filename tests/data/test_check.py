"""The dataset check: each fault is planted, found and named; a sound set has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.core.errors import DataError, UsageError
from gddctl.data.check import CheckReport, Finding, check_dataset, trainable
from gddctl.data.open import open_dataset

if TYPE_CHECKING:
    from tests.data.conftest import Tree

MakeTree = Callable[[str], "Tree"]
HEIGHT, WIDTH = 24, 36
EXACT = 1e-12  # shares are ratios of pixel counts


@pytest.fixture
def config(make_tree: MakeTree) -> DataConfig:
    return make_tree("camvid").config


def root_of(config: DataConfig) -> Path:
    assert config.root is not None
    return config.root


def frame(config: DataConfig, split: str = "train", index: int = 1) -> Path:
    return root_of(config) / split / f"0001TP_{split}{index}.png"


def mask(config: DataConfig, split: str = "train", index: int = 1) -> Path:
    return root_of(config) / f"{split}annot" / f"0001TP_{split}{index}.png"


def save(path: Path, pixels: NDArray[np.generic], form: str | None = None) -> None:
    Image.fromarray(pixels).save(path, form)


def only_error(report: CheckReport) -> Finding:
    assert not report
    assert len(report.errors) == 1, report.errors
    return report.errors[0]


def test_a_sound_set_passes_in_every_layout(tree: Tree) -> None:
    report = check_dataset(tree.config)
    assert report and report.findings == ()
    assert report.images == {"train": 3, "val": 2}
    assert set(report.histogram["train"]) == set(open_dataset(tree.config, "train").classes.names)


def test_the_histogram_counts_labelled_pixels(make_tree: MakeTree) -> None:
    tree = make_tree("folder-ids")
    report = check_dataset(tree.config)
    for split, labels in tree.labels.items():
        pixels = np.concatenate([label.ravel() for label in labels])
        labelled = pixels[pixels != 255]
        for train_id, share in enumerate(report.histogram[split].values()):
            assert share == pytest.approx((labelled == train_id).mean(), abs=EXACT)
        assert report.ignored[split] == pytest.approx((pixels == 255).mean(), abs=EXACT)


def test_an_unreadable_image_is_named(config: DataConfig) -> None:
    path = frame(config)
    path.write_bytes(path.read_bytes()[:200])
    finding = only_error(check_dataset(config))
    assert (finding.split, finding.file, finding.kind, finding.index) == ("train", str(path), "unreadable-image", 1)
    assert "not readable as an image" in finding.detail


def test_an_unreadable_mask_is_named(config: DataConfig) -> None:
    mask(config, "val", 0).write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    finding = only_error(check_dataset(config))
    assert (finding.split, finding.file, finding.kind, finding.index) == ("val", str(mask(config, "val", 0)), "unreadable-mask", 0)


def test_a_size_mismatch_names_both_sizes(config: DataConfig) -> None:
    save(mask(config), np.zeros((HEIGHT, WIDTH - 6), np.uint8))
    finding = only_error(check_dataset(config))
    assert finding.kind == "size-mismatch" and finding.file == str(mask(config))
    assert "30 x 24" in finding.detail and "36 x 24" in finding.detail


def test_an_exif_turned_image_is_measured_upright(config: DataConfig) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: 36 x 24 pixels in the file are 24 x 36 upright
    Image.open(frame(config)).save(frame(config), exif=exif)
    assert only_error(check_dataset(config)).kind == "size-mismatch"
    save(mask(config), np.asarray(Image.open(mask(config))).T.copy())
    assert check_dataset(config)


def test_an_id_out_of_range_gives_value_and_pixel_count(config: DataConfig) -> None:
    pixels = np.asarray(Image.open(mask(config))).copy()
    pixels[3, 4:9] = 12
    save(mask(config), pixels)
    finding = only_error(check_dataset(config))
    assert finding.kind == "id-out-of-range" and finding.index == 1
    assert "value 12 (5 pixels)" in finding.detail


def test_a_colour_without_a_class_is_out_of_range_too(make_tree: MakeTree) -> None:
    tree = make_tree("folder-rgb")
    path = root_of(tree.config) / "train" / "masks" / "train-0.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, :3] = (1, 2, 3)
    save(path, pixels)
    finding = only_error(check_dataset(tree.config))
    assert finding.kind == "id-out-of-range" and "value [1, 2, 3] (3 pixels)" in finding.detail


def test_an_all_ignored_mask_is_named(config: DataConfig) -> None:
    save(mask(config), np.full((HEIGHT, WIDTH), 11, np.uint8))
    finding = only_error(check_dataset(config))
    assert finding.kind == "all-ignored" and finding.file == str(mask(config))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_jpeg_mask_is_named_whatever_its_suffix(config: DataConfig, suffix: str) -> None:
    pixels = np.asarray(Image.open(mask(config)))
    mask(config).unlink()
    save(mask(config).with_suffix(suffix), pixels, "JPEG")
    finding = only_error(check_dataset(config))
    assert finding.kind == "jpeg-mask" and finding.file == str(mask(config).with_suffix(suffix))


def black_and_white(seed: int) -> NDArray[np.uint8]:
    return (np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.5).astype(np.uint8) * 255


def test_black_and_white_masks_are_an_error_when_all_are(config: DataConfig) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            save(mask(config, split, index), black_and_white(index))
    report = check_dataset(config)
    assert [finding.kind for finding in report.errors] == ["binary-mask"] * 5
    assert {finding.file for finding in report.errors if finding.split == "val"} == {str(mask(config, "val", index)) for index in range(2)}


def test_one_black_and_white_mask_among_others_is_a_warning(config: DataConfig) -> None:
    save(mask(config), black_and_white(1))
    report = check_dataset(config)
    assert report
    assert [(finding.kind, finding.file) for finding in report.warnings] == [("binary-mask", str(mask(config)))]


def test_black_and_white_is_fine_where_255_is_a_class(make_tree: MakeTree) -> None:
    tree = make_tree("folder-ids")
    root = root_of(tree.config)
    (root / "classes.yaml").write_text("- {id: 0, name: nothing, source: [0]}\n- {id: 1, name: crack, source: [255]}\n")
    for number, path in enumerate(sorted((root / "masks").rglob("*.png"))):
        save(path, black_and_white(number))
    report = check_dataset(tree.config)
    assert report and not report.warnings
    assert report.histogram["train"]["crack"] > 0.4


def test_a_missing_mask_and_a_missing_image_are_named_together(config: DataConfig) -> None:
    mask(config, "train", 0).unlink()
    frame(config, "train", 2).unlink()
    report = check_dataset(config)
    found = {(finding.kind, finding.file) for finding in report.errors}
    assert found == {("missing-mask", str(frame(config, "train", 0))), ("missing-image", str(mask(config, "train", 2)))}
    assert report.images["train"] == 3 and report.bad_pairs("train") == 2 and report.bad_indices("train") == ()


def test_a_listed_frame_that_is_not_there_is_named(make_tree: MakeTree) -> None:
    tree = make_tree("camvid-lists")
    with (root_of(tree.config) / "train.txt").open("a") as stream:
        stream.write("/SegNet/CamVid/train/gone.png /SegNet/CamVid/trainannot/gone.png\n")
    finding = only_error(check_dataset(tree.config))
    assert finding.kind == "missing-image" and finding.file == "gone"


def test_an_image_in_both_splits_is_found_by_content(config: DataConfig) -> None:
    frame(config, "train", 2).write_bytes(frame(config, "val", 1).read_bytes())
    report = check_dataset(config)
    finding = only_error(report)
    assert (finding.kind, finding.split, finding.file) == ("split-overlap", "train", str(frame(config, "train", 2)))
    assert str(frame(config, "val", 1)) in finding.detail
    assert report.bad_indices("train") == (2,) and report.bad_indices("val") == ()


def test_a_class_absent_from_val_is_a_warning(config: DataConfig) -> None:
    for index in range(2):
        pixels = np.asarray(Image.open(mask(config, "val", index))).copy()
        pixels[pixels == 8] = 3
        save(mask(config, "val", index), pixels)
    report = check_dataset(config)
    assert report and [(f.split, f.file, f.kind) for f in report.warnings] == [("val", "car", "class-absent")]
    assert report.histogram["val"]["car"] == 0


def test_paths_that_are_not_there_and_empty_splits(config: DataConfig) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        check_dataset(config.model_copy(update={"root": Path("/nowhere")}))
    with pytest.raises(UsageError, match="no such folder"):
        check_dataset(config, ["train", "extra"])
    for folder in ("val", "valannot"):
        for path in (root_of(config) / folder).iterdir():
            path.unlink()
    with pytest.raises(DataError, match="empty"):
        check_dataset(config)


def test_drawn_scenes_pass() -> None:
    told: list[tuple[int, int]] = []
    scenes = DataConfig(synthetic=SyntheticConfig(train_images=12, val_images=8, height=96, width=144))
    report = check_dataset(scenes, progress=lambda done, total: told.append((done, total)))
    assert report and report.images == {"train": 12, "val": 8}
    assert told[11] == (12, 12) and told[-1] == (8, 8)


def test_the_report_is_json(config: DataConfig) -> None:
    frame(config).unlink()
    value = json.loads(json.dumps(check_dataset(config).to_json()))
    assert value["schema"] == 1 and value["passed"] is False
    assert value["findings"][0]["kind"] == "missing-image" and value["images"]["train"] == 3
    assert set(value["histogram"]) == {"train", "val"}


def test_training_is_refused_until_the_bad_pairs_may_be_skipped(config: DataConfig) -> None:
    frame(config, "train", 1).write_bytes(b"not a picture")
    mask(config, "train", 0).unlink()
    report = check_dataset(config)
    for allowed in (0, 1):
        with pytest.raises(DataError, match=r"2 of 3 pairs.*cannot be used.*--skip-bad 2") as caught:
            trainable(config.model_copy(update={"skip_bad": allowed}), "train", report)
        assert "0001TP_train1.png: unreadable-image" in str(caught.value)
    dataset = trainable(config.model_copy(update={"skip_bad": 2}), "train", report)
    assert [dataset.name(index) for index in range(len(dataset))] == ["0001TP_train2"]
    assert dataset[0].label.shape == (HEIGHT, WIDTH)
    assert len(trainable(config, "val", report)) == 2


def test_a_split_without_a_usable_pair_is_refused_even_when_all_may_be_skipped(config: DataConfig) -> None:
    for index in range(3):
        frame(config, "train", index).write_bytes(b"not a picture")
    with pytest.raises(DataError, match="not one usable pair"):
        trainable(config.model_copy(update={"skip_bad": 9}), "train", check_dataset(config))


def test_camvid_itself_is_sound(camvid_config: DataConfig) -> None:
    report = check_dataset(camvid_config, ["val"])
    assert report and report.images == {"val": 101}
    assert sum(report.histogram["val"].values()) == pytest.approx(1.0)
