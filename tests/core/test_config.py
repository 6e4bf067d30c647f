"""Settings: every mistake is one line with the key, what was expected and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gddctl.core.config.load import digest_of, load_config, merge, parse, to_settings, to_yaml
from gddctl.core.config.methods import Combined, Cwd, Gdd, NoMethod
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import ConfigError, UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("distill.method.temprature=3", ["distill.method.temprature", "unknown key", "did you mean 'temperature'?"]),
        ("datta.layout=voc", ["datta", "did you mean 'data'?"]),
        ("data.preprocess.sise=[64, 64]", ["data.preprocess.sise", "did you mean 'size'?"]),
        ("train.iterations=many", ["train.iterations", "valid integer", "many"]),
        ("train.iterations='300'", ["train.iterations", "valid integer", "300"]),
        ("train.lr=.nan", ["train.lr"]),
        ("train.crop=[1, 64]", ["train.crop.0", "greater than or equal to 8"]),
        ("train.crop=[64]", ["train.crop"]),
        ("train.scale=[2, 1]", ["train", "[smallest, largest]"]),
        ("train={batch_size: 3, devices: 2}", ["batch_size 3", "2 devices"]),
        ("data.layout=camvid", ["data", "needs 'root'"]),
        ("data.val_split=train", ["training images"]),
        ("distill.method.kind=foo", ["distill.method", "'none', 'kd', 'cwd'"]),
        ("distill.method=[{kind: kd}, {kind: cwd, wieght: 1}]", ["distill.method.1.wieght", "did you mean 'weight'?"]),
        ("distill.method=[{kind: kd}, {kind: cwd, place: stage9}]", ["distill.method.1.place", "'stage4' or 'head'", "stage9"]),
        ("distill.method=[{kind: kd}, {kind: none}]", ["distill.method.1", "'none'", "'gdd'"]),
        ("distill.method=[]", ["distill.method", "empty list"]),
        ("distill.method=3", ["distill.method", "object", "3"]),
        ("distill.method={kind: diffkd, feature: null, logits: false}", ["distill.method", "neither"]),
        ("train.class_weights=heavy", ["train.class_weights", "inverse_log"]),
        ("data.root=$NO_SUCH_VARIABLE_HERE/x", ["data.root", "NO_SUCH_VARIABLE_HERE", "not set"]),
        ("train.iterations", ["expected key=value"]),
        ("train.=3", ["expected key=value"]),
        ("train.crop=[1", ["not YAML"]),
    ],
)
def test_a_mistake_names_its_place_and_remedy(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_list_of_methods_is_a_combination_and_survives_its_yaml() -> None:
    config = load_config(None, ["distill.method=[{kind: gdd, weight: 20}, {kind: cwd, place: head}]"])
    assert config.distill.method == Combined(methods=(Gdd(weight=20.0), Cwd(place="head")))
    assert parse(RunConfig, to_settings(config)) == config
    one = load_config(None, ["distill.method={kind: cwd, place: head}"])
    assert one.distill.method == Cwd(place="head")


def test_a_key_in_a_list_is_looked_up_among_its_own_kind() -> None:
    with pytest.raises(ConfigError, match=r"distill.method.0.noise: unknown key; known keys: kind, labelled_only, temperature, weight"):
        load_config(None, ["distill.method=[{kind: kd, noise: none}]"])


@pytest.mark.parametrize("key", ["weight=3", "0.weight=3"])
def test_a_key_into_a_list_of_methods_is_one_clear_line(key: str) -> None:
    two = "distill.method=[{kind: gdd}, {kind: cwd}]"
    says = rf"^--set distill\.method\.{key}: distill\.method is a list of 2 \(gdd, cwd\); a key does not say which"
    with pytest.raises(ConfigError, match=says):
        load_config(None, [two, f"distill.method.{key}"])
    assert load_config(None, [two, "distill.method.kind=cwd"]).distill.method == Cwd()  # one instead of several may be said


def test_the_far_off_key_lists_what_is_known() -> None:
    with pytest.raises(ConfigError, match="known keys: .*temperature"):
        load_config(None, ["distill.method.zzz=1"])


def test_files_overrides_and_flags_in_order(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 1\ntrain: {iterations: 10, lr: 0.5}\ndata: {layout: voc, root: sub/voc}\n")
    config = load_config(path, ["train.lr=0.25"], over={"train": {"iterations": 20}, "seed": 2})
    assert (config.seed, config.train.iterations, config.train.lr) == (2, 20, 0.25)
    assert config.data.root == tmp_path / "sub/voc"


def test_paths_of_a_labels_own_teacher_are_read_like_those_of_the_common_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETWORKS", str(tmp_path / "networks"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "c.yaml").write_text(
        "compare: {methods: {ours: {kind: kd}, theirs: {kind: kd}, plain: {kind: kd}}, teachers: {"
        "ours: {bundle: big, encoder_weights: $NETWORKS/e.pth},"
        "theirs: {external: {kind: smp, path: ~/net, classes: names.txt}},"
        "plain: {encoder_weights: none, iterations: 3, external: {classes: cityscapes}}}}"
    )
    monkeypatch.chdir("/")
    teachers = load_config(tmp_path / "c.yaml", ["compare.teachers.plain.bundle=elsewhere"]).compare.teachers
    assert teachers["ours"] == {"bundle": str(tmp_path / "big"), "encoder_weights": str(tmp_path / "networks" / "e.pth")}
    assert teachers["theirs"]["external"] == {
        "kind": "smp", "path": str(tmp_path / "home" / "net"), "classes": str(tmp_path / "names.txt")
    }  # fmt: skip
    assert teachers["plain"] == {"encoder_weights": "none", "iterations": 3, "external": {"classes": "cityscapes"}, "bundle": "/elsewhere"}
    with pytest.raises(ConfigError, match=r"compare\.teachers\.ours\.bundle: \$NOWHERE/t: the environment variable NOWHERE is not set"):
        load_config(tmp_path / "c.yaml", ["compare.teachers.ours.bundle=$NOWHERE/t"])


@pytest.mark.parametrize("teachers", ["[a]", "{a: big}", "3", "{a: {external: x}}"])
def test_teachers_that_are_no_sections_are_a_mistake_like_any_other(teachers: str) -> None:
    with pytest.raises(ConfigError, match=r"compare.*teachers"):
        load_config(None, [f"compare.teachers={teachers}"])


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = load_config(None, ["train.class_weights=[1.0, 2.0]", "distill.method={kind: none}", "train.ema=0.99"])
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(config))
    again = load_config(path)
    assert again == config
    assert digest_of(again) == digest_of(config) != digest_of(load_config(None))


def test_another_kind_starts_afresh() -> None:
    assert load_config(None).distill.method == Gdd()
    assert load_config(None, ["distill.method.kind=none"]).distill.method == NoMethod()
    assert load_config(None, ["distill.method.weight=3"]).distill.method == Gdd(weight=3.0)
    assert merge({"m": {"kind": "a", "x": 1}}, {"m": {"kind": "b"}}) == {"m": {"kind": "b"}}


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such config file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_load(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GDDCTL_CAMVID", str(tmp_path))
    assert load_config(path).data.root == tmp_path


def test_settings_are_plain_json() -> None:
    settings = to_settings(load_config(None))
    assert settings["train"]["crop"] == [128, 192]
    assert settings["distill"]["method"]["kind"] == "gdd"
