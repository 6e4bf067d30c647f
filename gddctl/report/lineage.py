"""What was made from what: bundles and files with their digests, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gddctl.core.artifact.card import Card
from gddctl.report.headline import network_title
from gddctl.report.inputs import RunFiles
from gddctl.report.wording import duration, megabytes


@dataclass(frozen=True)
class Link:
    """One bundle or file."""

    depth: int  # steps from the teacher
    name: str
    what: str
    sha256: str
    size: str
    holds: str  # census, in words


@dataclass(frozen=True)
class Training:
    """How one bundle was trained."""

    role: str
    network: str
    facts: tuple[tuple[str, str], ...]
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """How to do it again."""

    command: str
    facts: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, str], ...]
    config: str


def lineage(run: RunFiles) -> tuple[Link, ...]:
    """Bundles, then files under what they were made from."""
    return (*_bundles(run), *_files(run))


def trainings(run: RunFiles) -> tuple[Training, ...]:
    """One entry per bundle."""
    return tuple(
        Training(role, network_title(card), tuple(_facts(card)), tuple(words.strip().rstrip(".") for words in card.differs_from_paper))
        for role, card in run.cards.items()
    )


def recipe(run: RunFiles) -> Recipe:
    """Command, versions, config."""
    said = run.environment
    command = said.get("command")
    packages = said.get("packages")
    return Recipe(
        command=shlex.join(map(str, command)) if isinstance(command, list) else str(command or ""),
        facts=tuple(_surroundings(said)),
        packages=tuple((str(k), str(v)) for k, v in packages.items()) if isinstance(packages, Mapping) else (),
        config=run.config,
    )


def _bundles(run: RunFiles) -> Iterator[Link]:
    for role, card in run.cards.items():
        child = card.training.teacher_weights_sha256 is not None and "teacher" in run.cards
        what = f"{network_title(card)}, trained bundle" + (" (taught by the teacher above)" if child else "")
        yield Link(1 if child else 0, role, what, card.weights_sha256, megabytes(run.bundle_bytes.get(role)), "")


def _files(run: RunFiles) -> Iterator[Link]:
    """Depth first, from the files without a parent here."""
    known = {row["sha256"] for row in run.artifacts}
    shown: set[str] = set()

    def walk(parent: str | None, depth: int) -> Iterator[Link]:
        for row in run.artifacts:
            mine = row.get("parent_sha256") if row.get("parent_sha256") in known else None
            if mine == parent and row["file"] not in shown:
                shown.add(row["file"])
                yield _link(row, depth)
                yield from walk(row["sha256"], depth + 1)

    yield from walk(None, 2)


def _link(row: Mapping[str, Any], depth: int) -> Link:
    what = f"{row.get('graph')} graph, {str(row.get('precision')).upper()}, for {row.get('target')}"
    calibration = row.get("calibration_sha256")
    census = row.get("census") or {}
    holds = [f"{name} {count}" for name, count in sorted(census.items()) if count]
    if calibration:
        holds.append(f"calibration {str(calibration)[:12]}")
    return Link(depth, str(row["file"]), what, str(row["sha256"]), megabytes(row.get("bytes")), ", ".join(holds))


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    record = card.training
    if card.origin is not None:
        yield "imported from", f"{card.origin.file} ({card.origin.kind}), SHA-256 {card.origin.sha256[:16]}"
        yield "licence", card.licence
        return
    if card.teacher is not None and card.teacher.source != "gddctl":
        yield "teacher", f"{card.teacher.name} ({card.teacher.source}), licence {card.teacher.licence}"
    yield "iterations", f"{record.iterations}, best at {record.best_iteration}"
    yield "time", duration(record.seconds)
    yield "images seen", f"{record.images_seen}"
    yield "seed", str(record.seed)
    yield "precision", f"{record.precision} on {record.devices} process{'es' if record.devices != 1 else ''}"
    yield "parameters", f"{card.parameters:,}".replace(",", " ")
    if record.method:
        for method in record.method.get("methods", [record.method]):
            yield "distillation", ", ".join(f"{key} {value}" for key, value in method.items())
    yield "config digest", card.config_digest[:16]


def _surroundings(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, title in (("time", "started"), ("gddctl", "gddctl"), ("python", "Python"), ("platform", "platform"), ("cpus", "logical CPUs")):
        if said.get(key) is not None:
            yield title, str(said[key])
    git = said.get("git")
    if isinstance(git, Mapping):
        yield "git", f"{git.get('commit')}{' with uncommitted changes' if git.get('dirty') else ''}"
    if said.get("earlier"):
        yield "sittings", f"{len(said['earlier']) + 1}: the run was continued"
