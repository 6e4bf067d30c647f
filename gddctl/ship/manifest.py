"""The manifest of a release: every file with its hash, every model with what it must answer for the golden image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt

from gddctl.core.config.load import parse
from gddctl.core.config.sections import Graph, Precision, Target
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.core.files import read_json, write_json
from gddctl.core.preprocess import Share
from gddctl.core.section import Section

RELEASE_MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"  # of the manifest's bytes; the two are the only files that the manifest does not name
UNLISTED = frozenset((RELEASE_MANIFEST, SIGNATURE))
KIND: Literal["gddctl release"] = "gddctl release"
MOST_BYTES = 16 << 20  # of a manifest: some 100 000 files, which no release has; a stranger's is not read without end


def _inside(path: str) -> str:
    """A path that stays in the release, whoever wrote the manifest."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or not path.isprintable() or str(pure) != path:
        raise ValueError(f"'{path}' is not a plain path inside the release")
    return path


Place = Annotated[str, AfterValidator(_inside)]


class Machine(Section):
    """Where a mask was computed: what decides in which order floating-point numbers are added."""

    machine: str  # "x86_64"
    instructions: tuple[str, ...]  # notable instruction sets, sorted
    packages: dict[str, str]  # versions of what decodes, resizes and infers, by module
    threads: Literal[1] = 1


class Expectation(Section):
    """What a model must answer for the golden image, against the expected mask."""

    exact_on: Machine | None = None  # there every pixel must be equal; elsewhere ``min_agreement`` holds
    min_agreement: Share  # share of pixels with the same class, 0..1
    measured: Share | None = None  # when it was shipped; None: it could not be run there
    why: str  # where the number comes from, in words


class ModelRow(Section):
    """One model of the release."""

    file: Place
    sha256: str
    format: Literal["onnx", "engine"]
    graph: Graph
    precision: Precision
    target: Target
    parent_sha256: str | None
    calibration_sha256: str | None
    proof: tuple[str, ...]  # from the file up to what it was proven against, by name; empty: nobody proved it
    emulated: bool = False  # proven under a runtime that only imitates its target's arithmetic
    expect: Expectation


class Golden(Section):
    """An image and its expected mask, made by the FP32 deploy graph."""

    image: Place
    mask: Place  # PNG, 8 bits, class ids, at the image's size
    network_input: Place  # PPM: the image as the network takes it
    source: str  # "drawn" or the name of the file that was given
    reference: str  # name of the FP32 deploy graph
    reference_sha256: str
    made_on: Machine


class FileRow(Section):
    """One file."""

    path: Place
    bytes: NonNegativeInt
    sha256: str


class Release(Section):
    """``manifest.json`` at the top of a release."""

    schema_version: Literal[1] = 1
    kind: Literal["gddctl release"] = KIND
    name: str
    created: str  # ISO 8601, UTC; SOURCE_DATE_EPOCH where it is set
    gddctl_version: str
    weights_sha256: str  # of the one student that every model is made from
    licence: str
    golden: Golden
    models: tuple[ModelRow, ...] = Field(min_length=1)
    files: tuple[FileRow, ...]


def read_release(folder: Path) -> Release:
    """The manifest of ``folder``.

    Raises:
        UsageError: no such folder, or no release.
        ArtifactError: the manifest is damaged, or leads out of the folder.
    """
    path = folder / RELEASE_MANIFEST
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such release folder", remedy="make one with: gddctl ship BUNDLE --out DIR")
    if not path.is_file():
        raise UsageError(f"{folder}: no release (no {RELEASE_MANIFEST} in it)", remedy="name the folder that gddctl ship wrote")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ArtifactError(f"{path}: {size} bytes, expected at most {MOST_BYTES}", remedy="copy the release again")
    value = read_json(path)
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise ArtifactError(f"{path}: not the manifest of a release", remedy="name the folder that gddctl ship wrote")
    try:
        return parse(Release, value)
    except ConfigError as error:
        raise ArtifactError(f"{path}: not a manifest that this version reads ({error.message})", remedy="copy the release again") from error


def write_release(folder: Path, release: Release) -> None:
    """Write the manifest, naming every file that is in ``folder`` now."""
    rows = tuple(
        FileRow(path=name, bytes=(folder / name).stat().st_size, sha256=sha256_file(folder / name))
        for name in files_in(folder)
        if name not in UNLISTED
    )
    write_json(folder / RELEASE_MANIFEST, release.model_copy(update={"files": rows}).model_dump(mode="json"))


def files_in(folder: Path) -> list[str]:
    """Every file and link below ``folder``, by its path in the release, sorted; empty folders too, with a slash."""
    found: list[str] = []
    for here, folders, names in os.walk(folder, onerror=_refuse):
        place = Path(here)
        links = [name for name in folders if (place / name).is_symlink()]
        found += [(place / name).relative_to(folder).as_posix() for name in [*names, *links]]
        if not names and not folders and place != folder:
            found.append(f"{place.relative_to(folder).as_posix()}/")
    return sorted(found)


def printable(text: str) -> str:
    r"""Text of a stranger as a terminal may show it: control characters and broken UTF-8 as escapes.

    >>> printable("a\x1b[2Jb")
    "'a\\x1b[2Jb'"
    """
    return text if text.isprintable() else ascii(text)


def _refuse(error: OSError) -> None:
    raise error


def problems(folder: Path, release: Release) -> Iterator[str]:
    """How the files differ from what the manifest says, one sentence each, in the order of their names.

    Raises:
        OSError: a file or folder cannot be read.
    """
    told = {row.path: row for row in release.files}
    for name in sorted({*told, *files_in(folder)}):
        path, row = folder / name, told.get(name)
        if row is None and name not in UNLISTED:
            yield f"{printable(name)}: not in the manifest"
        elif path.is_symlink():
            yield f"{name}: a link, expected a file"
        elif not path.is_file():
            yield f"{name}: {'not a file' if path.exists() else 'missing'}"
        elif row is None:
            continue
        elif (size := path.stat().st_size) != row.bytes:
            yield f"{name}: {size} bytes, expected {row.bytes}"
        elif (found := sha256_file(path)) != row.sha256:
            yield f"{name}: sha256 {found[:12]}…, expected {row.sha256[:12]}…"
    yield from _contradictions(release, told)


def _contradictions(release: Release, told: Mapping[str, FileRow]) -> Iterator[str]:
    """What a manifest says that cannot all be so, whatever lies in the folder."""
    for names in ([row.path for row in release.files], [row.file for row in release.models]):
        yield from (f"{name}: {count} times in the manifest" for name, count in Counter(names).items() if count > 1)
    for model in release.models:
        if PurePosixPath(model.file).suffix != f".{model.format}":
            yield f"{model.file}: not the name of an {model.format} file"
        if model.file not in told:
            yield f"{model.file}: a model that is not among the files"
        elif told[model.file].sha256 != model.sha256:
            yield f"{model.file}: the manifest names two hashes of it"
    for part in (release.golden.image, release.golden.mask, release.golden.network_input):
        if part not in told:
            yield f"{part}: of the golden image, but not among the files"
