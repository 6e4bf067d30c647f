"""What is known of models before they are timed: from the files that lie about, ours or anybody's."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.errors import ArtifactError, UsageError
from gddctl.pipeline.benching import known_mious


@pytest.mark.parametrize(
    "text",
    [
        '{"models": []}', '{"models": 3}', '{"models": {"student": {"sha256": 1, "miou": "good"}}}', "[1, 2]", "null", '"text"',
        "{not json", '{"accuracy": 0.9}', '{"sha256": "a", "miou": 43.2}', '{"sha256": "a", "miou": NaN}',
    ],
)  # fmt: skip
def test_a_strangers_eval_json_costs_no_measurement(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names it; named with --evals it is an error. Partner: ours, in the other folder, counts."""
    model = tmp_path / "run" / "artifacts" / "student.onnx"
    model.parent.mkdir(parents=True)
    (tmp_path / "run" / "eval.json").write_text(text)
    (model.parent / "eval.json").write_text(json.dumps({"models": {"student": {"sha256": "f" * 64, "miou": 0.5}, "gone": None}}))
    with caplog.at_level(logging.WARNING, logger="gddctl"):
        assert known_mious([model]) == {"f" * 64: 0.5}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path / 'run' / 'eval.json'}: ") and "mIoU is not known" in said
    with pytest.raises((UsageError, ArtifactError), match=r"eval\.json"):
        known_mious([model.parent / "student.onnx"], [tmp_path / "run"])


def test_a_run_that_has_evaluated_nothing_yet_is_no_stranger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    value: dict[str, Any] = {"schema": 1, "models": {}}
    (tmp_path / "eval.json").write_text(json.dumps(value))
    with caplog.at_level(logging.WARNING, logger="gddctl"):
        assert known_mious([tmp_path / "student.onnx"]) == {}
    assert not caplog.records
