"""``gddctl eval`` with flip, scales and window, in a process of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.commands.conftest import Cli

VIEWS = ("--flip", "--scales", "0.75,1.25", "--window")


def test_eval_shows_the_views_asked_for(psp: Any, cli: Cli) -> None:
    plain = cli("eval", psp.bundle, "--threads", "1", "--json").json
    window = cli("eval", psp.bundle, "--threads", "1", "--window", "--json").json
    assert (plain["miou"], plain["per_class"]) == (window["miou"], window["per_class"])  # drawn at the network's own size: one window
    assert "sliding window 64x96 with stride 42x64" in window["protocol"] and "whole image" in plain["protocol"]
    every = cli("eval", psp.bundle, "--threads", "1", *VIEWS)
    assert every.code == 0
    assert "protocol: image scaled by 0.75+1.25 (area), sliding window 64x96" in every.out and "with flip" in every.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scales", "0.5,1"), "add --window"),
        (("--scales", "0.5;1", "--window"), "--scales 0.5;1: expected numbers with commas"),
        (("--scales", "0", "--window"), "expected factors above 0"),
    ],
)
def test_wrong_scales_are_usage_errors(psp: Any, cli: Cli, words: tuple[str, ...], message: str) -> None:
    done = cli("eval", psp.bundle, *words)
    assert done.code == 2
    assert message in done.err


def test_a_deploy_graph_is_refused_before_its_data_is_looked_for(psp: Any, cli: Cli) -> None:
    done = cli("eval", psp.fp32_deploy.path, "--flip")
    assert done.code == 2
    assert "deploy graph" in done.err and "logits file" in done.err
