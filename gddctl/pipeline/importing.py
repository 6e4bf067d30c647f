"""A teacher from elsewhere becomes a teacher bundle: read, matched to the dataset, scored, written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import assert_never

import gddctl
from gddctl.core.artifact.card import Card, Origin, TrainingRecord
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.network import architecture_of
from gddctl.core.classes import ClassTable
from gddctl.core.config.external import External, NamedClasses
from gddctl.core.config.load import digest_of
from gddctl.core.config.sections import RunConfig
from gddctl.core.digest import sha256_file, sha256_json
from gddctl.core.errors import UsageError
from gddctl.data.classes import CAMVID, CITYSCAPES, VOC
from gddctl.data.classes_file import read_classes
from gddctl.data.open import open_dataset
from gddctl.data.published import ade20k_classes, cocostuff_classes
from gddctl.pipeline.datasets import open_usable
from gddctl.pipeline.judging import counter
from gddctl.prove.evaluate import evaluate
from gddctl.runtime.open import open_runtime

if TYPE_CHECKING:
    from gddctl.models.bring import Brought

log = logging.getLogger(__name__)

_STAGING = "bundle"  # a bundle without its evaluation, where trainings keep theirs
_WEIGHTS = ("*.safetensors", "*.bin")  # in one file or several
_BESIDE = ("config.json", "preprocessor_config.json")  # of a folder: what else the import goes by


def import_teacher(config: RunConfig, folder: Path) -> Path:
    """Write the bundle ``FOLDER/teacher`` from ``teacher.external`` and score it on the val split.

    Raises:
        ConfigError, UsageError, ArtifactError, EnvironmentMissing: the checkpoint is not there, damaged, or does not fit.
    """
    from gddctl.distill.places import pick_device
    from gddctl.models.bring import bring
    from gddctl.models.checkpoint import save_bundle

    source = config.teacher.external
    assert source is not None
    digest = sha256_of(source)
    table = open_dataset(config.data, config.data.train_split).classes
    spec = config.data.preprocess
    brought = bring(source, table.names, spec, (spec.size, config.train.crop), _said_names(source, table))
    bundle, staging = folder / "teacher", folder / "checkpoints" / "teacher" / _STAGING
    card = _card(config, brought, table, digest)
    save_bundle(staging, brought.model, card)
    log.info("teacher: %s imported from %s; scoring it", architecture_of(brought.network), source.path)
    split, usable = config.data.val_split, open_usable(config.data, config.data.val_split)
    with open_runtime(staging, device=pick_device(config.train), threads=config.train.threads) as runtime:
        report = evaluate(runtime, usable, split=split, progress=counter("evaluate teacher"))
    save_bundle(bundle, brought.model, card.model_copy(update={"evaluation": report.to_json()}))
    shutil.rmtree(staging, ignore_errors=True)
    return bundle


def require_source(source: External) -> None:
    """The checkpoint is there; nothing is read yet.

    Raises:
        UsageError: it is not.
    """
    if not source.path.exists():
        raise UsageError(f"teacher.external.path: {source.path}: no such file or folder", remedy="check the path")


def sha256_of(source: External) -> str:
    """The checkpoint's own digest: of its file, or of the weights in its folder.

    Raises:
        UsageError: it is not there, or the folder holds no weights.
    """
    require_source(source)
    if source.path.is_file():
        return sha256_file(source.path)
    for pattern in _WEIGHTS:
        if parts := sorted(source.path.glob(pattern)):
            return sha256_file(parts[0]) if len(parts) == 1 else sha256_json([sha256_file(part) for part in parts])
    raise UsageError(
        f"teacher.external.path: {source.path}: a folder without weights ({' or '.join(_WEIGHTS)})",
        remedy="name the checkpoint file, or the folder that save_pretrained wrote",
    )


def files_beside(source: External) -> dict[str, str]:
    """SHA-256 of what an import goes by besides the weights, where it is there: the folder's configs, and the file of class names."""
    found = {name: path for name in _BESIDE if (path := source.path / name).is_file()}
    if isinstance(source.classes, Path) and source.classes.is_file():
        found["classes"] = source.classes
    return {name: sha256_file(path) for name, path in found.items()}


def require_same_source(bundle: Path, source: External) -> None:
    """The bundle that stands was imported from the checkpoint that lies there now; one that is gone is not asked for.

    Raises:
        UsageError: the checkpoint is another than it was.
    """
    origin = read_card(bundle).origin
    if origin is None or not source.path.exists() or (found := sha256_of(source)) == origin.sha256:
        return
    raise UsageError(
        f"{bundle}: imported from another checkpoint than {source.path} is now (sha256 {origin.sha256[:12]}…, found {found[:12]}…)",
        remedy=f"name another --out; or remove {bundle} to import it anew, where no student of this folder came from it",
    )


def _said_names(source: External, table: ClassTable) -> Sequence[str] | None:
    """Class names that the settings give, by list, file or reference."""
    said = source.classes
    if said is None or isinstance(said, tuple):
        return said
    if isinstance(said, Path):
        return read_classes(said).classes.names
    return _published(said, table).names


def _published(name: NamedClasses, table: ClassTable) -> ClassTable:
    match name:
        case "dataset":
            return table
        case "camvid":
            return CAMVID
        case "cityscapes":
            return CITYSCAPES
        case "voc":
            return VOC
        case "ade20k":
            return ade20k_classes()
        case "cocostuff":
            return cocostuff_classes()
        case other:
            assert_never(other)


def _card(config: RunConfig, brought: Brought, table: ClassTable, digest: str) -> Card:
    source = config.teacher.external
    assert source is not None
    kept = set(brought.network.order)
    return Card(
        name=f"{config.name}-teacher",
        role="teacher",
        network=brought.network,
        parameters=0,
        classes=table,
        preprocess=brought.preprocess,
        data=config.data,
        weights_sha256="",
        config_digest=digest_of(config),
        training=TrainingRecord(
            iterations=0, best_iteration=0, seconds=0.0, images_seen=0, seed=config.seed, devices=0, precision="imported"
        ),
        origin=Origin(
            kind=source.kind,
            file=source.path.name,
            sha256=digest,
            classes=brought.names,
            dropped=tuple(name for index, name in enumerate(brought.names) if index not in kept),
        ),
        licence=brought.licence or "unknown",
        gddctl_version=gddctl.__version__,
    )
