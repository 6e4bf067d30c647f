"""Everything a training will need, looked for before it starts and before its folder is claimed: not after an hour."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.card import Role
from gddctl.core.artifact.card_io import read_card, require_plain, require_weights
from gddctl.core.artifact.teaching import class_order
from gddctl.core.classes import ClassTable, require_same_classes
from gddctl.core.config.sections import NetworkConfig, RunConfig
from gddctl.core.errors import UsageError
from gddctl.data.open import open_dataset
from gddctl.pipeline.importing import require_source


def look_ahead(config: RunConfig, roles: tuple[Role, ...]) -> None:
    """Look for the dataset, ready bundles and encoder weights that training ``roles`` will open. Decodes nothing.

    Raises:
        UsageError: a folder or file is not there.
        DataError: a split is empty, or lacks more files than ``data.skip_bad``.
        ArtifactError: a bundle is damaged, or of other classes than the dataset's.
        ConfigError: the teacher's answers are to be kept where no training crop comes twice.
        EnvironmentMissing: a tracker's package is not installed, or there is no compiler for train.compile.
    """
    _require_extras(config, roles)
    train = open_dataset(config.data, config.data.train_split)
    open_dataset(config.data, config.data.val_split)
    if config.teacher.external is not None:
        if "teacher" in roles or (roles == ("student",) and config.distill.method.kind != "none"):
            require_source(config.teacher.external)
    elif config.teacher.bundle is None:
        if "teacher" in roles:
            _require_weights(config.teacher, "teacher")
    elif "teacher" in roles or (roles == ("student",) and config.distill.method.kind != "none"):
        require_teaching_bundle(config.teacher.bundle, train.classes, drop=config.teacher.drop_classes)
    if set(roles) & {"baseline", "student"}:
        _require_weights(config.student, "student")
        if config.student.init is not None:
            require_fitting_bundle(config.student.init, train.classes)
            require_plain(config.student.init, read_card(config.student.init), what="started from")


def _require_extras(config: RunConfig, roles: tuple[Role, ...]) -> None:
    from gddctl.distill.tracking import require_trackers

    require_trackers(config.train.track)
    if config.train.compile:
        from gddctl.distill.compiling import require_compiler
        from gddctl.distill.places import pick_device

        require_compiler(pick_device(config.train))
    if "student" in roles and config.distill.method.kind != "none" and config.distill.cache_teacher != "none":
        from gddctl.distill.teacher_cache import require_repeating

        require_repeating(config.train, config.data.preprocess.size)


def require_teaching_bundle(folder: Path, classes: ClassTable, *, drop: bool) -> None:
    """Refuse a teacher's bundle that is damaged, or whose classes do not match ``classes``; see :func:`class_order`.

    Raises:
        UsageError: no such folder.
        ArtifactError: as said; the message lists both.
    """
    card = read_card(folder)
    require_weights(folder, card)
    class_order(card, classes, who=f"teacher {folder}", drop=drop)


def require_fitting_bundle(folder: Path, classes: ClassTable) -> None:
    """Refuse a bundle that is damaged, or whose classes are not ``classes`` in names and order; the message lists both.

    Raises:
        UsageError: no such folder.
        ArtifactError: as said.
    """
    card = read_card(folder)
    require_weights(folder, card)
    require_same_classes(card.classes, classes, who=str(folder))


def _require_weights(network: NetworkConfig, section: str) -> None:
    wanted = network.encoder_weights
    if isinstance(wanted, Path) and not wanted.is_file():
        raise UsageError(
            f"{section}.encoder_weights: {wanted}: no such file", remedy="expected none, imagenet, or a local .safetensors file"
        )
