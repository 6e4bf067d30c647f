"""A look through whole splits: every pair decoded, then what only the set as a whole can show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE, ClassTable
from gddctl.core.config.sections import DataConfig
from gddctl.core.errors import DataError
from gddctl.data.check.pair import PairLook, look_at_pair
from gddctl.data.check.report import CheckReport, Finding
from gddctl.data.listing import Listing
from gddctl.data.open import list_split, open_dataset

_THREADS = 4  # decoding lets go of the interpreter lock
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _SplitLook:
    split: str
    classes: ClassTable
    files: tuple[str, ...]  # image paths, or names of drawn scenes, by index
    labels: tuple[str, ...]
    looks: tuple[PairLook, ...]
    incomplete: tuple[Finding, ...]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(256,) pixels by train id over the split."""
        return np.sum([look.counts for look in self.looks if look.counts is not None], axis=0, dtype=np.int64) + np.zeros(256, np.int64)


def check_dataset(config: DataConfig, splits: Sequence[str] | None = None, progress: Progress | None = None) -> CheckReport:
    """Look through splits of a dataset.

    Args:
        config: which dataset.
        splits: which splits, the training split first; None: train and val of ``config``.
        progress: called with (pairs done, pairs in all) of each split.

    Raises:
        UsageError: the root, a split or a folder of the layout is not there.
        DataError: a split is empty.
    """
    names = tuple(dict.fromkeys(splits if splits is not None else (config.train_split, config.val_split)))
    seen = [_look_at_split(config, split, progress) for split in names]
    overlap = _overlap(seen)
    findings: list[Finding] = []
    for look in seen:
        findings += look.incomplete
        findings += [finding for pair in look.looks for finding in pair.findings]
        findings += _black_and_white(look)
        findings += [finding for finding in overlap if finding.split == look.split]
        findings += _absent(look)
    return CheckReport(
        place=config.layout if config.root is None else f"{config.root} ({config.layout})",
        images={look.split: len(look.looks) + len(look.incomplete) for look in seen},
        findings=tuple(findings),
        histogram={look.split: _shares(look) for look in seen},
        ignored={look.split: float(look.counts[IGNORE]) / max(1, int(look.counts.sum())) for look in seen},
    )


def _look_at_split(config: DataConfig, split: str, progress: Progress | None) -> _SplitLook:
    listing = list_split(config, split)
    if listing is None:
        return _look_at_scenes(config, split, progress)
    if not listing.pairs:
        raise DataError(
            f"{listing.place}: the split is empty, expected images and masks", remedy="check --layout, the split's name and the folder"
        )
    jobs = [
        (index, pair.image, pair.label) for index, pair in enumerate(listing.complete) if pair.image is not None and pair.label is not None
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = pool.map(lambda job: look_at_pair(split, job[0], job[1], job[2], listing.code, len(listing.classes)), jobs)
        kept = tuple(_counted(looks, len(jobs), progress))
    files, labels = tuple(str(image) for _, image, _ in jobs), tuple(str(label) for _, _, label in jobs)
    return _SplitLook(split, listing.classes, files, labels, kept, tuple(_incomplete(listing, split)))


def _look_at_scenes(config: DataConfig, split: str, progress: Progress | None) -> _SplitLook:
    dataset = open_dataset(config, split)

    def look(index: int) -> PairLook:
        counts = np.bincount(dataset[index].label.ravel(), minlength=256).astype(np.int64)
        return PairLook((), dataset.content_sha256(index), counts, black_and_white=False)

    looks = tuple(_counted(map(look, range(len(dataset))), len(dataset), progress))
    names = tuple(dataset.name(index) for index in range(len(dataset)))
    return _SplitLook(split, dataset.classes, names, names, looks, ())


def _counted(looks: Iterator[PairLook], total: int, progress: Progress | None) -> Iterator[PairLook]:
    for done, look in enumerate(looks, start=1):
        if progress is not None:
            progress(done, total)
        yield look


def _incomplete(listing: Listing, split: str) -> Iterator[Finding]:
    for pair in listing.incomplete:
        if pair.image is None and pair.label is None:
            yield Finding(split, pair.name, "missing-image", f"{listing.place} names it, but neither image nor mask is there")
        elif pair.image is None:
            yield Finding(split, str(pair.label), "missing-image", f"no image called {pair.name}; restore it or remove the mask")
        else:
            yield Finding(split, str(pair.image), "missing-mask", f"no mask called {pair.name}; restore it or remove the image")


def _black_and_white(look: _SplitLook) -> Iterator[Finding]:
    """Masks of 0 and 255 only. Where 255 is ignore a single one can be meant; a whole split of them is not."""
    suspects = [index for index, pair in enumerate(look.looks) if pair.black_and_white]
    readable = sum(pair.counts is not None for pair in look.looks)
    everywhere = len(suspects) == readable
    for index in suspects if len(look.classes) > 1 else ():
        detail = (
            "holds 0 and 255 only, as black and white pictures do, and 255 is read as ignore; store class ids, or map 255 with 'source'"
        )
        yield Finding(look.split, look.labels[index], "binary-mask", detail, "error" if everywhere else "warning", index)


def _overlap(seen: Sequence[_SplitLook]) -> list[Finding]:
    """Images that stand in two splits; named in the earlier split, from which they can be left out."""
    findings = []
    for place, look in enumerate(seen):
        later = {
            pair.sha256: (other, index) for other in reversed(seen[place + 1 :]) for index, pair in enumerate(other.looks) if pair.sha256
        }
        for index, pair in enumerate(look.looks):
            if pair.sha256 in later:
                other, at = later[pair.sha256]
                detail = f"the same bytes as {other.files[at]} of split '{other.split}': scores there would be measured on training images"
                findings.append(Finding(look.split, look.files[index], "split-overlap", detail, index=index))
    return findings


def _absent(look: _SplitLook) -> Iterator[Finding]:
    counts = look.counts
    for train_id, name in enumerate(look.classes.names):
        if counts[train_id] == 0:
            detail = f"no pixel of class {train_id} in split '{look.split}': nothing can be learnt or measured for it there"
            yield Finding(look.split, name, "class-absent", detail, "warning")


def _shares(look: _SplitLook) -> dict[str, float]:
    counts = look.counts[: len(look.classes)]
    total = max(1, int(counts.sum()))
    return {name: float(count) / total for name, count in zip(look.classes.names, counts, strict=True)}
