"""YAML of settings: numbers without a point are numbers, doubled keys and circles are refused, texts come back as texts."""

from __future__ import annotations

import pytest
import yaml

from gddctl.core.config.load import load_config
from gddctl.core.config.yaml_text import read_yaml, write_yaml
from gddctl.core.errors import ConfigError


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("+2E4", 2e4), ("1.5e-3", 1.5e-3), ("7", 7), ("e3", "e3"), ("'1e-3'", "1e-3")])
def test_scientific_numbers(text: str, value: object) -> None:
    assert read_yaml(f"lr: {text}") == {"lr": value}


def test_an_override_may_be_scientific() -> None:
    assert load_config(None, ["train.lr=1e-3"]).train.lr == 1e-3


@pytest.mark.parametrize("text", ["1e5", "2024", "yes", "a: b", "#x", "null", "ö", ""])
def test_texts_come_back_as_texts(text: str) -> None:
    assert read_yaml(write_yaml({"name": text})) == {"name": text}


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="'seed' stands twice, first in line 1"):
        read_yaml("seed: 1\nname: x\nseed: 2\n")


def test_merge_keys_may_be_overridden() -> None:
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}")["b"] == {"x": 2}


def test_a_value_that_contains_itself_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="contains itself"):
        read_yaml("a: &a [*a]")
    assert read_yaml("a: &a [1]\nb: *a")["b"] == [1]  # the same value twice is no circle


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["export.targets=[ort-cuda]"], "int8 for 'ort-cuda' is not made"),
        (["export.engines=true"], "need the target 'tensorrt'"),
        (["export.engine={min_batch: 4, opt_batch: 2}"], "expected min <= opt <= max"),
        (["export.calibration.method=median"], "method"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, overrides)
    load_config(None, ["export.targets=[ort-cpu, tensorrt]", "export.engines=true", "export.precisions=[fp16, int8]"])


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b"])
def test_a_name_is_a_folders_name(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        load_config(None, over={"name": name})
    assert load_config(None, over={"name": "camvid 2.0"}).name == "camvid 2.0"
