"""From what was typed to one config."""

from __future__ import annotations

from pathlib import Path

import pytest

from gddctl.commands.flags import LayoutName, PrecisionName
from gddctl.core.errors import ConfigError, UsageError
from gddctl.pipeline.settings import Flags, parse_network, refuse_torchrun, resolve


def test_nothing_typed_is_the_demo() -> None:
    config = resolve(None, ())
    assert config.name == "demo"
    assert config.data.layout == "synthetic"


def test_flags_win_over_the_file_and_set_over_both(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("train: {iterations: 5, batch_size: 2}\n")
    flags = Flags(iterations=7, batch_size=4, precision=PrecisionName.bf16, seed=9, student="deeplabv3-resnet18-s16", skip_bad=3)
    config = resolve(path, ["train.batch_size=6"], flags)
    assert (config.train.iterations, config.train.batch_size, config.train.precision, config.seed) == (7, 6, "bf16", 9)
    assert (config.student.arch, config.student.output_stride, config.data.skip_bad) == ("deeplabv3", 16, 3)


def test_data_alone_is_not_the_demo(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    config = resolve(None, (), Flags(data=tmp_path))
    assert (config.data.layout, config.data.root) == ("folder", tmp_path)
    assert config.name == "run"
    forced = resolve(None, (), Flags(data=tmp_path, layout=LayoutName.camvid))
    assert forced.data.layout == "camvid"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pspnet-resnet18", {"arch": "pspnet", "encoder": "resnet18"}),
        ("fpn-tu-resnet26d-s32", {"arch": "fpn", "encoder": "tu-resnet26d", "output_stride": 32}),
    ],
)
def test_networks_are_named_in_one_word(text: str, wanted: dict[str, object]) -> None:
    assert parse_network(text) == wanted


@pytest.mark.parametrize("text", ["pspnet", "PSP-x", "-resnet18", ""])
def test_a_name_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="ARCH-ENCODER"):
        parse_network(text)


def test_torchrun_is_refused_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    refuse_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="gddctl train"):
        refuse_torchrun()
