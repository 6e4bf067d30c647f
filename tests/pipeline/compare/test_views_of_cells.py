"""``compare.views``: checked with the settings, and scores by different views never meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from gddctl.core.config.compare import CompareConfig, ViewsConfig
from gddctl.core.config.load import digest_of, load_config, parse, to_settings, to_yaml
from gddctl.core.config.sections import Architecture
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.reports.comparison import Arm, Cell
from gddctl.pipeline.compare.cell_files import read_cell, read_counts, scored_name, write_cell, write_counts
from gddctl.pipeline.compare.ground import common_digest
from gddctl.pipeline.compare.plan import cell_folder
from gddctl.pipeline.compare.result import write_result

FLIP, WINDOW = ViewsConfig(flip=True), ViewsConfig(window=True)
MakeBundle = Callable[[Architecture], Path]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compare.views={scales: [0.5, 1]}", r"^compare\.views: scales 0\.5\+1 without a window.*window: true"),
        ("compare.views={scales: [1, 1], window: true}", r"^compare\.views: scales 1\+1: one stands twice"),
        ("compare.views={scales: [0], window: true}", r"^compare\.views: scales 0: expected factors above 0 and up to 8"),
        ("compare.views={scales: [9], window: true}", r"^compare\.views: scales 9: expected factors"),
        ("compare.views={scales: [], window: true}", r"^compare\.views: scales \(none\): expected factors"),
        ("compare.views={scales: [.nan], window: true}", r"^compare\.views\.scales\.0: .*finite"),
        ("compare.views.scales=0.5", r"^compare\.views\.scales: "),
        ("compare.views.flip=twice", r"^compare\.views\.flip: .*found \"twice\""),
        ("compare.views.flop=true", r"^compare\.views\.flop: unknown key; did you mean 'flip'\?"),
    ],
)
def test_views_that_cannot_be_meant_are_refused_with_their_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def test_views_are_read_and_written_back(tmp_path: Path) -> None:
    config = load_config(None, ["compare.views={flip: true, scales: [0.75, 1], window: true}"])
    assert config.compare.views == ViewsConfig(flip=True, scales=(0.75, 1.0), window=True)
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_settings_without_views_are_named_as_before_there_were_any() -> None:
    assert "views" not in to_settings(CompareConfig(seeds=3))
    assert digest_of(load_config(None, ["compare.views.flip=false", "compare.seeds=3"])) == digest_of(
        load_config(None, ["compare.seeds=3"])
    )
    assert digest_of(load_config(None, ["compare.views.flip=true"])) != digest_of(load_config(None))


def test_a_folder_serves_all_views_because_its_cells_keep_their_bundles() -> None:
    assert common_digest(load_config(None, ["compare.views.flip=true"])) == common_digest(load_config(None))


def test_scores_by_different_views_stand_beside_each_other(tmp_path: Path) -> None:
    every = [ViewsConfig(), FLIP, WINDOW, ViewsConfig(window=True, scales=(0.5, 1.0)), ViewsConfig(window=True, scales=(0.5, 1.00000001))]
    assert len({scored_name("cell.json", views) for views in every}) == len(every)
    for number, views in enumerate(every):
        assert read_cell(tmp_path, views) is None, "nobody scored it so"
        write_cell(tmp_path, Cell("none", 0, 8, "done", miou=number / 10), views, protocol=str(number))
        write_counts(tmp_path, np.full((1, 2, 2), number), ["a"], views)
    for number, views in enumerate(every):
        read = read_cell(tmp_path, views)
        assert read is not None and read[0].miou == number / 10 and parse(ViewsConfig, read[1]["views"]) == views
        assert read_counts(tmp_path, views)[0].tolist() == [[[number] * 2] * 2]
    (tmp_path / scored_name("counts.npz", FLIP)).write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=scored_name("cell.json", FLIP)):
        read_counts(tmp_path, FLIP)


def test_a_table_holds_the_scores_of_its_views_alone_and_tells_of_the_others(make_bundle: MakeBundle, tmp_path: Path) -> None:
    right, wrong = np.array([[[5, 0], [0, 7]]]), np.array([[[0, 5], [7, 0]]])
    for method, scored in (("none", (ViewsConfig(), FLIP)), ("cwd", (ViewsConfig(),))):
        for seed in range(2):
            folder = cell_folder(tmp_path, method, seed, 8)
            copytree(make_bundle("pspnet"), folder / "student")
            for views in scored:
                write_cell(folder, Cell(method, seed, 8, "done", miou=float(views == FLIP)), views, protocol=f"flip {views.flip}")
                write_counts(folder, right if views == FLIP else wrong, ["a"], views)
    arms = [Arm("none", 8), Arm("cwd", 8), Arm("cwd", 8, "seconds")]

    def table(*overrides: str) -> tuple[str, dict[str, tuple[float, ...]], str]:
        result = write_result(tmp_path, load_config(None, overrides), arms, None, None, (), ())
        assert result is not None
        found = result.comparison
        return found.protocol, {row.arm.method: row.values for row in found.rows}, " ".join(found.notes)

    protocol, scores, notes = table()
    assert protocol.startswith("flip False") and scores == {"none": (0.0, 0.0), "cwd": (0.0, 0.0)} and "left out" not in notes
    protocol, scores, notes = table("compare.views.flip=true")
    assert protocol.startswith("flip True") and scores == {"none": (1.0, 1.0)}
    assert "left out: 2 of cwd." in notes
    assert write_result(tmp_path, load_config(None, ["compare.views.window=true"]), arms, None, None, (), ()) is None
