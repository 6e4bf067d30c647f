"""A commented config for a dataset that was looked at."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path
from string import Template

from gddctl.core.config.load import load_config
from gddctl.core.config.sections import DataConfig, Layout
from gddctl.core.config.yaml_text import write_yaml
from gddctl.core.errors import UsageError
from gddctl.core.files import write_text
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.open import open_dataset
from gddctl.pipeline.datasets import data_at
from gddctl.prove.subject import chosen_images

_LOOKED_AT = 24  # images whose size and labels are read; enough to see mixed sizes and rare classes


@dataclass(frozen=True)
class Seen:
    """What a look at a dataset showed."""

    layout: Layout
    root: Path | None
    counts: dict[str, int]
    sizes: Counter[tuple[int, int]]
    classes: tuple[str, ...]
    rare: tuple[str, ...]  # classes not seen in the images looked at

    @property
    def size(self) -> tuple[int, int]:
        """The most frequent (height, width)."""
        return self.sizes.most_common(1)[0][0]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        return f"{self.layout}, {counts} images of {self.size[0]} x {self.size[1]}, {len(self.classes)} classes"


def write_config(directory: Path | None, out: Path, *, layout: Enum | None, force: bool) -> str:
    """Write a commented config for the dataset in ``directory`` (None: drawn scenes); returns what was seen, in words.

    Raises:
        UsageError: ``out`` is there and ``force`` is not given, or it is a folder.
    """
    if out.is_dir():
        raise UsageError(f"{out}: a folder, expected the file to write", remedy="for example --out gddctl.yaml")
    if out.exists() and not force:
        raise UsageError(f"{out}: already there", remedy="choose another --out, or --force to keep it as FILE.old and write anew")
    seen = look(directory, layout)
    text = render(seen, out.resolve().parent)
    if out.exists():
        out.replace(_free_name(out))
    write_text(out, text)
    load_config(out)  # what we hand out must load
    return str(seen)


def look(directory: Path | None, layout: Enum | None) -> Seen:
    """Open both splits and read a few images."""
    placeholder = PreprocessSpec(size=(128, 192))
    config = DataConfig() if directory is None else data_at(directory, layout, placeholder)
    splits = {name: open_dataset(config, name) for name in (config.train_split, config.val_split)}
    train = splits[config.train_split]
    sizes: Counter[tuple[int, int]] = Counter()
    present: set[int] = set()
    for index in chosen_images(train, _LOOKED_AT):
        sample = train[index]
        height, width = sample.label.shape
        sizes[(height, width)] += 1
        present.update(int(value) for value in set(sample.label.ravel().tolist()))
    names = train.classes.names
    rare = tuple(name for index, name in enumerate(names) if index not in present)
    root = None if directory is None else directory.resolve()
    return Seen(config.layout, root, {name: len(split) for name, split in splits.items()}, sizes, names, rare)


def render(seen: Seen, folder: Path) -> str:
    """The config's text."""
    height, width = (_multiple(side) for side in seen.size)
    # Larger images than this train at half size by default: a quarter of the pixels; the config says so beside the size.
    shrink = 2 if height * width > 600 * 1200 else 1
    size = (_multiple(height // shrink), _multiple(width // shrink))
    train, val = seen.counts
    values = {
        "seen": seen,
        "classes": ", ".join(seen.classes),
        "rare": f"# not seen in the {_LOOKED_AT} images looked at: {', '.join(seen.rare)}\n" if seen.rare else "",
        "shown": "DIR" if seen.root is None else os.path.relpath(seen.root),
        "name": "drawn" if seen.root is None else _quoted(seen.root.name.lstrip(".") or "run"),
        "layout": seen.layout,
        "root": "null" if seen.root is None else _quoted(os.path.relpath(seen.root, folder)),
        "train": train,
        "val": val,
        "height": size[0],
        "width": size[1],
        "seen_height": seen.size[0],
        "seen_width": seen.size[1],
        "mixed": f"  # {len(seen.sizes)} different sizes seen; all are stretched to this" if len(seen.sizes) > 1 else "",
        "crop_height": min(size[0], 512),
        "crop_width": min(size[1], 512),
        "workers": max(1, min(8, (os.cpu_count() or 2) - 1)),
        "images": min(128, seen.counts[train]),
    }
    template = resources.files("gddctl.pipeline").joinpath("init_template.yaml").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def _quoted(text: str) -> str:
    """``text`` as YAML that is read back as this text, whatever a folder may be called: 2024, yes, 'a: b'."""
    return write_yaml([text]).strip()[1:-1] if re.fullmatch(r"[\w./ -]+", text) else json.dumps(text, ensure_ascii=False)


def _free_name(path: Path) -> Path:
    """``FILE.old``, or the first ``FILE.old-N`` that is not there: nobody's settings are written over."""
    names = itertools.chain([f"{path.name}.old"], (f"{path.name}.old-{count}" for count in itertools.count(2)))
    return next(free for name in names if not (free := path.with_name(name)).exists())


def _multiple(side: int, of: int = 8) -> int:
    return max(32, side // of * of)
