"""The card of somebody else's ONNX: what it may leave out, and mistakes named by file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gddctl.core.artifact.foreign_card import read_foreign_card
from gddctl.core.errors import ConfigError, UsageError

WHOLE = """\
name: theirs
classes: [road, {name: sky, color: [1, 2, 3]}, car]
preprocess:
  size: [64, 96]
  channel_order: bgr
  mean: [0, 0, 0]
output: logits
licence: MIT
"""


def write(folder: Path, text: str) -> Path:
    (folder / "card.yaml").write_text(text)
    return folder / "card.yaml"


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    card = read_foreign_card(write(tmp_path, WHOLE))
    assert (card.name, card.input, card.output, card.licence, card.output_stride) == ("theirs", None, "logits", "MIT", None)
    assert card.preprocess.size == (64, 96) and card.preprocess.mean == (0.0, 0.0, 0.0) and card.preprocess.std[0] == 0.229
    assert card.table.names == ("road", "sky", "car") and card.table.palette[1] == (1, 2, 3)
    assert len(set(card.table.palette)) == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "channel_order: bgr",
            "channel_ordre: bgr",
            "card.yaml, line 5: preprocess.channel_ordre: unknown key; did you mean 'channel_order'?",
        ),
        ("color: [1", "colour: [1", "card.yaml, line 2: classes.1.colour: unknown key; did you mean 'color'?"),
        ("licence: MIT", "license: MIT", "card.yaml, line 8: license: unknown key; did you mean 'licence'?"),
        ("  size: [64, 96]\n", "", "card.yaml, line 3: preprocess.size: missing"),
        ("[64, 96]", "[64, 96.5]", "card.yaml, line 4: preprocess.size.1: input should be a valid integer, found 96.5"),
        ("bgr", "brg", "card.yaml, line 5: preprocess.channel_order: input should be 'rgb' or 'bgr', found \"brg\""),
        (
            "mean: [0, 0, 0]",
            "mean: [123.7, 1, 0]",
            "card.yaml, line 6: preprocess.mean.0: input should be less than or equal to 1, found 123.7",
        ),
        (
            "mean: [0, 0, 0]",
            "std: [58.4, 57.1, 57.4]",
            "card.yaml, line 3: preprocess: std [58.4, 57.1, 57.4] is of pixels 0 to 255; divide it",
        ),
        (", car]", ", road]", "card.yaml, line 1: classes: names appear twice: road"),
        ("name: theirs", "name: ../theirs", "card.yaml, line 1: name: '../theirs' begins the names of files"),
        ("name: theirs", "name: theirs\nname: ours", "card.yaml, line 2: not YAML (the key 'name' stands twice, first in line 1)"),
        ("  size: [64, 96]", "  size: [64, 96", "card.yaml, line "),
        (WHOLE, "[1, 2]", "card.yaml: expected keys and values, found list"),
        (WHOLE, "", "card.yaml: expected keys and values, found NoneType"),
    ],
)
def test_a_mistake_is_named_by_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        read_foreign_card(write(tmp_path, WHOLE.replace(old, new)))
    assert words in str(caught.value)


def test_two_mistakes_are_both_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 4: preprocess.size.1: .*; .*line 8: licens: unknown key; did you mean 'licence'\?"):
        read_foreign_card(write(tmp_path, WHOLE.replace("[64, 96]", "[64]").replace("licence", "licens")))


def test_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such card; a card says at least: name: mynet"):
        read_foreign_card(tmp_path / "card.yaml")
