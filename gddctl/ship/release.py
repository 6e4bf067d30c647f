"""Packing a release: everything is proven and computed first, then the folder appears whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl import __version__
from gddctl.core.artifact.engine import read_record, sidecar_path
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, EnvironmentMissing, UsageError
from gddctl.core.files import atomic_folder, write_bytes, write_json, write_text
from gddctl.core.reports.model_card import model_card
from gddctl.core.reports.model_facts import FileFacts, Known
from gddctl.core.reports.model_limits import limits_of
from gddctl.core.workspace import place_aside
from gddctl.ship.deployment import write_deployment
from gddctl.ship.gather import Cargo
from gddctl.ship.golden import Answer, Picture, answer, expectation, picture_of, png, ppm, this_machine
from gddctl.ship.manifest import UNLISTED, Golden, ModelRow, Release, files_in, problems, read_release, write_release
from gddctl.ship.programs import write_programs
from gddctl.ship.proof import Proof, proof_of
from gddctl.ship.shipped import Shipped
from gddctl.ship.sign import require_key, sign
from gddctl.ship.texts import card_text, licences_text, readme_text
from gddctl.ship.unproven import nobody_proved

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
_EPOCH = "SOURCE_DATE_EPOCH"  # seconds; reproducible-builds.org's name for "take this date, not today's"


@dataclass(frozen=True)
class Wishes:
    """What is asked of a release besides its models."""

    golden: Path | None = None  # an image of the user's instead of a drawn one
    key: Path | None = None  # a private key to sign with
    allow_unproven: bool = False
    force: bool = False  # move what stands at the place aside


def ship(cargo: Cargo, out: Path, wishes: Wishes) -> Release:
    """Write the release of ``cargo`` to ``out``.

    Raises:
        UsageError: something stands at ``out``, or a file that was named is not there.
        VerdictError: a file failed its parity gate, or nobody proved it.
        EnvironmentMissing: the FP32 deploy graph does not run here, or ssh-keygen is not there.
        ArtifactError: a file changed while it was being packed.
        RunFailed: the disk is full or not writable.
    """
    _require_free(out, force=wishes.force)
    if wishes.key is not None:
        require_key(wishes.key, "private key to sign with")
    seconds = _date()
    proofs = {item.sha256: _proof(cargo, item, allow_unproven=wishes.allow_unproven) for item in cargo.artifacts}
    picture = picture_of(wishes.golden, cargo.reference.info)
    every = {item.sha256: item for item in (cargo.reference, *cargo.artifacts)}
    answers = {sha256: _answer(item, picture) for sha256, item in every.items()}
    mask = _golden_mask(cargo.reference, answers)
    golden = _golden(cargo.reference, picture)
    rows = tuple(_row(item, proofs[item.sha256], answers[item.sha256], mask, cargo) for item in cargo.artifacts)
    with atomic_folder(out) as folder:
        _models(folder, cargo.artifacts)
        write_bytes(folder / golden.image, picture.data)
        write_bytes(folder / golden.mask, png(mask))
        write_bytes(folder / golden.network_input, ppm(picture.pixels, cargo.reference.info))
        _papers(folder, cargo, rows, golden, signed=wishes.key is not None)
        write_deployment(folder, [_shipped(item) for item in cargo.artifacts])
        _sums(folder)
        write_release(folder, _manifest(cargo, rows, golden, seconds))
        made = read_release(folder)
        if wrong := list(problems(folder, made)):
            raise ArtifactError(
                f"{out}: a file changed while it was being packed ({wrong[0]})", remedy="start again when nothing writes there"
            )
        if wishes.key is not None:
            sign(folder, wishes.key)
        for member in [folder, *folder.rglob("*")]:
            _open_to_all(member)
            os.utime(member, (seconds, seconds))
        _require_free(out, force=wishes.force)
        _move_aside(out)
    return made


def _golden_mask(reference: Artifact, answers: Mapping[str, Answer]) -> NDArray[np.uint8]:
    found = answers[reference.sha256]
    if found.mask is None:
        raise EnvironmentMissing(
            f"{reference.path}: does not run here, so there is no golden mask ({found.reason})",
            remedy='install a runtime: pip install "gddctl[cpu]"',
        )
    return found.mask


def _golden(reference: Artifact, picture: Picture) -> Golden:
    return Golden(
        image=f"golden/{picture.name}",
        mask="golden/mask.png",
        network_input="golden/input.ppm",
        source=picture.source,
        reference=reference.path.name,
        reference_sha256=reference.sha256,
        made_on=this_machine(),
    )


def _require_free(out: Path, *, force: bool) -> None:
    if out.name in ("", ".."):  # a folder that this process stands in or below: nothing can be put in its place
        raise UsageError(f"{out}: has no name of its own, expected a new folder", remedy="give --out a name, such as release")
    with suppress(OSError):  # unreadable: writing will say so
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise UsageError(f"{out}: a file or link is in the way, expected a new folder", remedy="choose another --out")
        if not force and out.is_dir() and any(out.iterdir()):
            raise UsageError(f"{out}: there is something here already", remedy="choose another --out, or --force to move it aside")


def _move_aside(out: Path) -> None:
    """What stands at ``out`` goes to ``out.old-TIME``; nothing is thrown away."""
    if not out.is_dir():
        return
    if not any(out.iterdir()):
        out.rmdir()
        return
    aside = place_aside(out)
    out.rename(aside)
    log.info("what stood at %s is now at %s", out, aside)


def _open_to_all(member: Path) -> None:
    """Readable by everybody whatever the umask here: containers copy the folder as it is and read it as a user of their own.

    Folders and programs get 0755, files 0644. Nothing in a release is a secret: a key signs from outside of it.
    """
    now = stat.S_IMODE(member.stat().st_mode)
    wanted = 0o755 if member.is_dir() or now & stat.S_IXUSR else 0o644
    if now != wanted:
        member.chmod(wanted)


def _date() -> int:
    text = os.environ.get(_EPOCH)
    if text is None:
        return int(time.time())
    try:
        seconds = int(text)
        time.strftime("%Y", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{_EPOCH}={text}: expected seconds since 1970, in UTC", remedy="for example: date +%s") from error
    return seconds


def _proof(cargo: Cargo, item: Artifact, *, allow_unproven: bool) -> Proof:
    proof = proof_of(item, list(cargo.parity), cargo.reference.info.parent_sha256)
    if not proof and not allow_unproven:
        raise nobody_proved([item])
    if not proof:
        log.warning("%s: ships unproven, and its card says so", item.path.name)
    return proof


def _answer(item: Artifact, picture: Picture) -> Answer:
    log.info("golden image: %s", item.path.name)
    found = answer(item.path, item.info, picture.pixels)
    if found.mask is None:
        log.info("not run here: %s", found.reason)
    return found


def _row(item: Artifact, proof: Proof, found: Answer, mask: NDArray[np.uint8], cargo: Cargo) -> ModelRow:
    rungs = tuple(rung for report in cargo.parity for rung in report.rungs if rung.candidate_sha256 == item.sha256)
    return ModelRow(
        file=f"models/{item.path.name}",
        sha256=item.sha256,
        format=item.format,
        graph=item.info.graph,
        precision=item.info.precision,
        target=item.info.target,
        parent_sha256=item.info.parent_sha256,
        calibration_sha256=item.info.calibration_sha256,
        proof=proof.chain,
        emulated=proof.emulated,
        expect=expectation(item, found, mask, cargo.reference, rungs),
    )


def _shipped(item: Artifact) -> Shipped:
    return Shipped(
        path=PurePosixPath("models") / item.path.name,
        info=item.info,
        format=item.format,
        sha256=item.sha256,
        engine=read_record(item.path) if item.format == "engine" else None,
    )


def _models(folder: Path, artifacts: Sequence[Artifact]) -> None:
    (folder / "models").mkdir()
    for item in artifacts:
        paths = [item.path, *([sidecar_path(item.path)] if item.format == "engine" else [])]
        for path in paths:
            shutil.copyfile(path, folder / "models" / path.name)


def _papers(folder: Path, cargo: Cargo, rows: tuple[ModelRow, ...], golden: Golden, *, signed: bool) -> None:
    info, card = cargo.reference.info, cargo.card
    facts = [FileFacts.of_info(item.path.name, item.sha256, item.path.stat().st_size, item.info) for item in cargo.artifacts]
    known = Known(
        card=card,
        info=info,
        files=tuple(facts),
        scores=cargo.scores,
        parity=cargo.proofs,
        latency=cargo.latency,
        calibration=cargo.calibration,
    )
    deploy = [item.path.name for item in cargo.artifacts if item.format == "onnx" and item.graph == "deploy" and _on_any_cpu(item)]
    default = PurePosixPath("models") / deploy[0] if deploy else None
    write_programs(folder, info, default)
    write_text(folder / "CARD.md", card_text(cargo.name, model_card(known)))
    write_json(folder / "card.json", _card_json(known, info))
    reports = _reports(folder, cargo)
    teacher = None if card is None or card.teacher is None else f"{card.teacher.name}, {card.teacher.licence}"
    write_text(folder / "LICENCES.md", licences_text(info.licence, teacher, golden))
    write_text(folder / "README.md", readme_text(cargo.name, rows, golden, default=default, signed=signed, reports=reports))


def _on_any_cpu(item: Artifact) -> bool:
    return item.info.precision != "int8" or item.info.target in ("any", "ort-cpu")


def _card_json(known: Known, info: ModelInfo) -> Mapping[str, Any]:
    """The card for programs: nothing in it says where the data lay or which images were in it."""
    card, score = known.card, known.score
    told = {
        "schema": 1,
        "name": known.source.name,
        "architecture": info.architecture,
        "output_stride": info.output_stride,
        "preprocess": info.preprocess.model_dump(mode="json"),
        "classes": info.classes.model_dump(mode="json")["classes"],
        "weights_sha256": info.weights_sha256,
        "licence": info.licence,
        "gddctl_version": info.gddctl_version,
        "evaluation": score.to_json() if score is not None else None,
        "limits": list(limits_of(known)),
    }
    if card is not None:
        told |= {
            "parameters": card.parameters,
            "differs_from_paper": list(card.differs_from_paper),
            "training": card.training.model_dump(mode="json"),
            "teacher": card.teacher.model_dump(mode="json") if card.teacher is not None else None,
        }
    return told


def _reports(folder: Path, cargo: Cargo) -> list[str]:
    """What was measured, of the files that ship."""
    written = []
    if cargo.proofs is not None:
        write_json(folder / "reports" / "parity.json", cargo.proofs.to_json())
        written.append("reports/parity.json")
    if cargo.timings is not None:
        write_json(folder / "reports" / "latency.json", cargo.timings.to_json())
        written.append("reports/latency.json")
    return written


def _sums(folder: Path) -> None:
    """``SHA256SUMS`` over everything so far, in the form that sha256sum reads."""
    names = [name for name in files_in(folder) if name not in UNLISTED]
    write_text(folder / SUMS, "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names))


def _manifest(cargo: Cargo, rows: tuple[ModelRow, ...], golden: Golden, seconds: int) -> Release:
    return Release(
        name=cargo.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
        gddctl_version=__version__,
        weights_sha256=cargo.reference.info.weights_sha256,
        licence=cargo.reference.info.licence,
        golden=golden,
        models=rows,
        files=(),
    )
