"""What a run needs is looked for before its folder is claimed; pairs that may be skipped are skipped by every stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gddctl.core.config.bench import BenchConfig
from gddctl.core.config.load import load_config
from gddctl.core.config.sections import DataConfig, RunConfig, SyntheticConfig
from gddctl.core.errors import ArtifactError, DataError, UsageError
from gddctl.core.files import write_json
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.synthetic import write_dataset
from gddctl.pipeline.benching import bench_images, bench_paths
from gddctl.pipeline.datasets import data_of_model, open_usable
from gddctl.pipeline.folder import Stage, complete, state_of
from gddctl.pipeline.init import write_config
from gddctl.pipeline.preflight import look_ahead
from gddctl.pipeline.run import ROLES, run_all


@pytest.fixture
def street(tmp_path: Path) -> Path:
    folder = tmp_path / "street"
    write_dataset(folder, SyntheticConfig(train_images=3, val_images=3, height=32, width=48))
    return folder


def config_of(root: Path, **over: object) -> RunConfig:
    return load_config(None, over={"data": {"layout": "folder", "root": str(root), "preprocess": {"size": [32, 48]}}, **over})


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"teacher": {"bundle": "/nowhere/teacher"}}, "/nowhere/teacher: no such bundle"),
        ({"student": {"init": "/nowhere/start"}}, "/nowhere/start: no such bundle"),
        ({"student": {"encoder_weights": "/nowhere/r18.safetensors"}}, "student.encoder_weights: /nowhere/r18"),
        ({"teacher": {"encoder_weights": "/nowhere/r50.safetensors"}}, "teacher.encoder_weights: /nowhere/r50"),
        ({"data": {"layout": "folder", "root": "/nowhere/street"}}, "/nowhere/street: no such folder"),
    ],
)
def test_what_is_not_there_is_named_before_the_folder_is_claimed(street: Path, tmp_path: Path, over: dict[str, object], says: str) -> None:
    look_ahead(config_of(street), ROLES)
    with pytest.raises(UsageError, match=says):
        run_all(config_of(street, **over), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bundle_whose_weights_are_not_its_cards(street: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "card.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"card\.json"):
        look_ahead(config_of(street, teacher={"bundle": str(tmp_path / "teacher")}), ROLES)


def test_a_bad_pair_that_may_be_skipped_spoils_no_stage(street: Path) -> None:
    bad = sorted((street / "images" / "val").iterdir())[0]
    bad.write_bytes(b"no image")
    strict = config_of(street).data
    lenient = strict.model_copy(update={"skip_bad": 1})
    assert [len(open_usable(lenient, split)) for split in ("train", "val")] == [3, 2]
    images, files = bench_images(lenient)
    assert len(images) == len(files) == 2 and bad not in files
    with pytest.raises(DataError, match=bad.name):
        bench_images(strict)


def test_a_config_that_is_no_runs_says_nothing_of_a_models_data(tmp_path: Path) -> None:
    model = tmp_path / "models" / "student.onnx"
    model.parent.mkdir()
    (tmp_path / "config.yaml").write_text("somebody: elses\n")
    with pytest.raises(UsageError, match="--data"):
        data_of_model(model, PreprocessSpec(size=(32, 48)), data=None, layout=None)
    (tmp_path / "config.yaml").write_text("data: {synthetic: {seed: 5}}\n")
    (tmp_path / "run.json").write_text("{}")
    assert data_of_model(model, PreprocessSpec(size=(32, 48)), data=None, layout=None).synthetic.seed == 5


@pytest.mark.parametrize("text", ["[]", '{"stages": []}', '{"stages": {"x": {}}}'])
def test_a_damaged_ledger_is_an_error_in_words(tmp_path: Path, text: str) -> None:
    stage = Stage("x", "make x", {}, ("x.json",), lambda: None)
    write_json(tmp_path / "x.json", {})
    complete(tmp_path, stage, 1.0)
    assert state_of(tmp_path, stage) == "done"
    (tmp_path / "stages.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"stages\.json"):
        state_of(tmp_path, stage)


@pytest.mark.parametrize("name", ["2024", "yes", "a: b", "x #y", "null", "1e5", 'it\'s "q"'])
def test_init_on_a_folder_of_any_name(street: Path, tmp_path: Path, name: str) -> None:
    shutil.move(street, tmp_path / name)
    write_config(tmp_path / name, tmp_path / "c.yaml", layout=None, force=False)
    config = load_config(tmp_path / "c.yaml")
    assert (config.name, config.data.root) == (name, (tmp_path / name).resolve())


def test_init_never_moves_a_folder_and_keeps_every_older_file(street: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder"):
        write_config(street, street, layout=None, force=True)
    assert (street / "classes.yaml").is_file()
    out = tmp_path / "c.yaml"
    for text in ("first", "second"):
        out.write_text(text)
        write_config(street, out, layout=None, force=True)
    assert sorted(path.read_text() for path in tmp_path.glob("c.yaml.old*")) == ["first", "second"]
    out.write_text("third")
    with pytest.raises(UsageError, match="nowhere"):
        write_config(tmp_path / "nowhere", out, layout=None, force=True)
    assert out.read_text() == "third"


def test_drawn_scenes_have_nothing_to_skip() -> None:
    data = DataConfig(synthetic=SyntheticConfig(train_images=2, val_images=2), skip_bad=5)
    assert len(open_usable(data, "train")) == 2


def test_bench_refuses_a_file_for_its_folder_before_it_measures(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="a file is in the way"):
        bench_paths([tmp_path / "not-looked-at.onnx"], BenchConfig(), out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
