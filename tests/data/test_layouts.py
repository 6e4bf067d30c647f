"""Contract of every dataset layout, on a tiny tree laid out like the real download."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.core.errors import ConfigError, DataError, UsageError
from gddctl.data.dataset import SegDataset
from gddctl.data.detect import detect_layout
from gddctl.data.open import open_dataset
from gddctl.data.published import cocostuff_classes, cocostuff_stored

if TYPE_CHECKING:
    from tests.data.conftest import Tree

MakeTree = Callable[[str], "Tree"]


def save(path: Path, pixels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def assert_contract(dataset: SegDataset) -> None:
    for index in range(len(dataset)):
        sample, again = dataset[index], dataset[index]
        assert sample.image.dtype == np.uint8 and sample.image.ndim == 3 and sample.image.shape[2] == 3
        assert sample.label.dtype == np.uint8 and sample.label.shape == sample.image.shape[:2]
        assert sample.label[sample.label != 255].max(initial=0) < len(dataset.classes)
        assert np.array_equal(sample.image, again.image) and np.array_equal(sample.label, again.label)
        assert sample.name == dataset.name(index)
        assert dataset.content_sha256(index) == dataset.content_sha256(index)
    assert len({dataset.name(index) for index in range(len(dataset))}) == len(dataset)
    assert len({dataset.content_sha256(index) for index in range(len(dataset))}) == len(dataset)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_layout_reads_what_was_written(tree: Tree, split: str) -> None:
    dataset = open_dataset(tree.config, split)
    assert_contract(dataset)
    assert len(dataset) == len(tree.labels[split])
    assert len(dataset.classes) == tree.num_classes
    for index, name in enumerate(tree.names[split]):
        at = [i for i in range(len(dataset)) if dataset.name(i) == name]
        assert len(at) == 1, f"{name} is not in the split"
        sample = dataset[at[0]]
        assert np.array_equal(sample.label, tree.labels[split][index])
        files = dataset.files(at[0])
        assert files is not None
        assert dataset.content_sha256(at[0]) == hashlib.sha256(files[0].read_bytes()).hexdigest()
        if files[0].suffix == ".png":  # JPEG frames come back close, not equal
            assert np.array_equal(sample.image, tree.images[split][index])


def test_a_missing_root_is_a_usage_error(tree: Tree) -> None:
    config = tree.config.model_copy(update={"root": Path("/nowhere/at/all")})
    with pytest.raises(UsageError, match="/nowhere/at/all: no such folder") as caught:
        open_dataset(config, "train")
    assert caught.value.exit_code == 2


def test_a_missing_split_is_a_usage_error_that_says_what_is_there(tree: Tree) -> None:
    with pytest.raises(UsageError, match="holds|lists there") as caught:
        open_dataset(tree.config, "testing")
    assert (caught.value.exit_code == 2 and "train" in str(caught.value)) or "masks" in str(caught.value)


def test_drawn_scenes_keep_the_same_contract() -> None:
    config = DataConfig(synthetic=SyntheticConfig(train_images=3, val_images=2, height=48, width=64))
    for split, count in (("train", 3), ("val", 2)):
        dataset = open_dataset(config, split)
        assert_contract(dataset)
        assert len(dataset) == count and dataset.files(0) is None
    with pytest.raises(UsageError, match="'test'"):
        open_dataset(config, "test")


def test_an_empty_split_is_a_data_error(make_tree: MakeTree) -> None:
    config = make_tree("camvid").config
    assert config.root is not None
    for folder in ("train", "trainannot"):
        for path in (config.root / folder).iterdir():
            path.unlink()
    with pytest.raises(DataError, match="the split is empty") as caught:
        open_dataset(config, "train")
    assert caught.value.exit_code == 5


def test_a_missing_mask_refuses_the_split_unless_it_is_allowed(make_tree: MakeTree) -> None:
    config = make_tree("folder-ids").config
    assert config.root is not None
    (config.root / "masks" / "train" / "train-1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pairs are incomplete: train-1 has no mask; .*--skip-bad 1"):
        open_dataset(config, "train")
    dataset = open_dataset(config.model_copy(update={"skip_bad": 1}), "train")
    assert [dataset.name(index) for index in range(len(dataset))] == ["train-0", "train-2"]


def test_masks_that_match_no_image_say_so(make_tree: MakeTree) -> None:
    config = make_tree("folder-ids").config
    assert config.root is not None
    for path in (config.root / "masks" / "train").iterdir():
        path.rename(path.with_name(f"mask_{path.name}"))
    with pytest.raises(DataError, match="incomplete|not one of"):
        open_dataset(config, "train")


def test_a_value_without_a_meaning_names_value_and_pixels(make_tree: MakeTree) -> None:
    config = make_tree("camvid").config
    assert config.root is not None
    mask = np.zeros((24, 36), np.uint8)
    mask[0, :5] = 77
    save(config.root / "trainannot" / "0001TP_train1.png", mask)
    dataset = open_dataset(config, "train")
    with pytest.raises(DataError, match=r"0001TP_train1\.png: value 77 \(5 pixels\)"):
        dataset[1]
    assert dataset[0].label.shape == (24, 36)


def test_a_mask_of_another_size_names_both_sizes(make_tree: MakeTree) -> None:
    config = make_tree("camvid").config
    assert config.root is not None
    save(config.root / "trainannot" / "0001TP_train1.png", np.zeros((24, 30), np.uint8))
    with pytest.raises(DataError, match=r"30 x 24 pixels, but its image 0001TP_train1\.png is 36 x 24"):
        open_dataset(config, "train")[1]


def test_camvid_frames_may_be_jpeg_and_match_by_stem(make_tree: MakeTree) -> None:
    tree = make_tree("camvid-lists")
    assert tree.config.root is not None
    frame = tree.config.root / "train" / "0001TP_train0.png"
    Image.open(frame).save(frame.with_suffix(".jpg"))
    frame.unlink()
    dataset = open_dataset(tree.config, "train")  # the list file still says .png
    files = dataset.files(0)
    assert files is not None and files[0].name == "0001TP_train0.jpg"
    assert np.array_equal(dataset[0].label, tree.labels["train"][0])


def test_two_frames_of_one_name_are_ambiguous(make_tree: MakeTree) -> None:
    config = make_tree("camvid").config
    assert config.root is not None
    frame = config.root / "train" / "0001TP_train0.png"
    Image.open(frame).save(frame.with_suffix(".jpg"))
    with pytest.raises(DataError, match="ambiguous"):
        open_dataset(config, "train")


def test_cityscapes_takes_train_ids_only_where_all_frames_have_them(make_tree: MakeTree) -> None:
    tree = make_tree("cityscapes-labelIds")
    assert tree.config.root is not None
    city = tree.config.root / "gtFine" / "train" / "aachen"
    name = tree.names["train"][1]
    save(city / f"{name}_gtFine_labelTrainIds.png", np.zeros((24, 36), np.uint8))
    dataset = open_dataset(tree.config, "train")
    assert len(dataset) == 3
    labels = {dataset.name(index): dataset[index].label for index in range(3)}
    assert np.array_equal(labels[name], tree.labels["train"][1])


def test_cocostuff_takes_train_ids_only_where_all_masks_have_them(make_tree: MakeTree) -> None:
    tree = make_tree("cocostuff-labelTrainIds")
    assert tree.config.root is not None
    masks = tree.config.root / "annotations" / "train2017"
    first, second, _ = tree.names["train"]
    save(masks / f"{first}_labelTrainIds.png", np.full((24, 36), 170, np.uint8))
    assert (open_dataset(tree.config, "train")[0].label == 170).all()
    (masks / f"{second}_labelTrainIds.png").unlink()
    dataset = open_dataset(tree.config, "train")
    assert [dataset.name(index) for index in range(3)] == tree.names["train"]
    assert np.array_equal(dataset[0].label, tree.labels["train"][0])  # the masks as downloaded, not the 170 written above


@pytest.mark.parametrize(
    ("key", "folder", "file", "value"),
    [
        ("ade20k", "annotations/training", "ADE_train_00000002.png", 151),
        ("cocostuff-maps", "stuffthingmaps/train2017", "000000000001.png", 90),  # one of the things that were never segmented
        ("cocostuff-annotations", "annotations/train2017", "000000000001.png", 182),
        ("cocostuff-labelTrainIds", "annotations/train2017", "000000000001_labelTrainIds.png", 171),
    ],
)
def test_an_id_the_release_does_not_have_is_named_with_its_file(make_tree: MakeTree, key: str, folder: str, file: str, value: int) -> None:
    config = make_tree(key).config
    assert config.root is not None
    path = config.root / folder / file
    assert path.is_file()
    mask = np.full((24, 36), 3, np.uint8)
    mask[0, :7] = value
    save(path, mask)
    dataset = open_dataset(config, "train")
    with pytest.raises(DataError, match=rf"{file}: value {value} \(7 pixels\)"):
        dataset[1]
    assert dataset[0].label.shape == (24, 36)


def test_long_class_lists_are_the_published_ones(make_tree: MakeTree) -> None:
    ade = open_dataset(make_tree("ade20k").config, "train").classes
    assert (ade.names[0], ade.names[12], ade.names[149]) == ("wall", "person", "flag")  # ids 1, 13 and 150 of objectInfo150.txt
    assert (ade.palette[0], ade.palette[12], ade.palette[149]) == ((120, 120, 120), (150, 5, 61), (92, 0, 255))
    coco = cocostuff_classes()
    assert len(set(coco.palette)) == 171
    # ids 1, 13, 90, 92 and 182 of labels.txt; 12 and 91 are among those never segmented
    for stored, train_id, name in ((0, 0, "person"), (12, 11, "stop sign"), (89, 79, "toothbrush"), (91, 80, "banner"), (181, 170, "wood")):
        assert cocostuff_stored()[train_id] == stored and coco.names[train_id] == name


def test_splits_may_be_named_as_their_folders(make_tree: MakeTree) -> None:
    for key, train in (("ade20k", "training"), ("cocostuff-maps", "train2017")):
        config = make_tree(key).config
        dataset, same = open_dataset(config, "train"), open_dataset(config, train)
        assert [dataset.name(index) for index in range(len(dataset))] == [same.name(index) for index in range(len(same))]
        assert config.root is not None
        shutil.rmtree(config.root)


def test_voc_lists_rule_the_split(make_tree: MakeTree) -> None:
    tree = make_tree("voc")
    assert tree.config.root is not None
    home = tree.config.root / "VOCdevkit" / "VOC2012"
    (home / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_train2\n2007_absent\n")
    with pytest.raises(DataError, match="2007_absent"):
        open_dataset(tree.config, "train")
    inner = tree.config.model_copy(update={"root": home, "skip_bad": 1})  # the root may also be the inner folder
    dataset = open_dataset(inner, "train")
    assert [dataset.name(index) for index in range(len(dataset))] == ["2007_train2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {id: 0, name: a}\n- {id: 2, name: b}\n", r"ids \[0, 2\]"),
        ("- {id: 0, name: a}\n- {id: 0, name: b}\n", r"ids \[0, 0\]"),
        ("- {id: 0, name: a, source: [3]}\n- {id: 1, name: b, source: [3]}\n", "source value 3"),
        ("- {id: 0, name: a, source: [3]}\n- {id: 1, name: b, source: [[1, 2, 3]]}\n", "one kind"),
        ("just words\n", "expected a list of classes"),
        ("a: [b\n", "not readable as YAML"),
        ("[]\n", r"ids \[\]"),
    ],
)
def test_a_wrong_classes_file_is_named(make_tree: MakeTree, text: str, message: str) -> None:
    config = make_tree("folder-ids").config
    assert config.root is not None
    (config.root / "classes.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(config, "train")
    assert "classes.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {id: 0, nmae: a}\n", "did you mean 'name'"),
        ("- {id: 0, name: a, source: [70000]}\n", "classes"),
        ("- {name: a}\n", "has no id"),
        ("- {name: a, ignore: true}\n", "no source"),
        ("- {id: 0, name: a}\n- {id: 1, name: a}\n", "twice"),
    ],
)
def test_a_wrong_entry_of_a_classes_file_names_its_key(make_tree: MakeTree, text: str, message: str) -> None:
    config = make_tree("folder-ids").config
    assert config.root is not None
    (config.root / "classes.yaml").write_text(text)
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        open_dataset(config, "train")
    assert "classes.yaml" in str(caught.value)


def test_a_missing_classes_file_says_what_one_looks_like(make_tree: MakeTree) -> None:
    config = make_tree("folder-ids").config
    assert config.root is not None
    (config.root / "classes.yaml").unlink()
    with pytest.raises(UsageError, match=r"classes\.yaml: no such file.*- \{id: 0, name: road"):
        open_dataset(config, "train")


def test_unlabelled_classes_get_colours_of_their_own(make_tree: MakeTree) -> None:
    config = make_tree("folder-ids").config
    assert len(set(open_dataset(config, "train").classes.palette)) == 3


def test_every_layout_is_known_by_its_folders(tree: Tree) -> None:
    assert tree.config.root is not None
    assert detect_layout(tree.config.root) == tree.config.layout


def test_an_unknown_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images \\+ masks"):
        detect_layout(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        detect_layout(tmp_path / "nowhere")


@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
def test_camvid_itself(camvid_config: DataConfig, split: str, count: int) -> None:
    dataset = open_dataset(camvid_config, split)
    assert len(dataset) == count
    assert dataset.classes.names[0] == "sky" and len(dataset.classes) == 11
    seen: set[int] = set()
    for index in range(0, count, 12):
        sample = dataset[index]
        assert sample.image.shape == (360, 480, 3) and sample.label.shape == (360, 480)
        seen |= set(np.unique(sample.label).tolist())
    assert seen <= {*range(11), 255} and len(seen) >= 11
