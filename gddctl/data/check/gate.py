"""The gate before training: a set that fails the check is refused, or trained on without its bad pairs where that is allowed."""

from __future__ import annotations

from gddctl.core.config.sections import DataConfig
from gddctl.core.errors import DataError
from gddctl.data.check.report import CheckReport
from gddctl.data.dataset import SegDataset
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset

_NAMED = 3  # findings that the message spells out


def trainable(config: DataConfig, split: str, report: CheckReport) -> SegDataset:
    """Open a split without the pairs that ``report`` found bad.

    Raises:
        DataError: more pairs are bad than ``config.skip_bad`` allows, or none is left.
    """
    bad = report.bad_pairs(split)
    if bad > config.skip_bad:
        errors = [finding for finding in report.errors if finding.split == split]
        named = "; ".join(f"{finding.file}: {finding.kind}: {finding.detail}" for finding in errors[:_NAMED])
        more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        raise DataError(
            f"{report.place}: {bad} of {report.images[split]} pairs of split '{split}' cannot be used"
            f" ({config.skip_bad} may be skipped): {named}{more}",
            remedy=f"see them all with: gddctl data check; then correct them, or leave them out with --skip-bad {bad}",
        )
    dataset = open_dataset(config, split)
    skipped = set(report.bad_indices(split))
    if not skipped:
        return dataset
    if len(skipped) == len(dataset):
        raise DataError(
            f"{report.place}: not one usable pair is left in split '{split}'", remedy="correct the files that: gddctl data check names"
        )
    return Subset(dataset, [index for index in range(len(dataset)) if index not in skipped])
