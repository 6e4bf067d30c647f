"""The class table: names, colours and the ignore label. Inside gddctl a label is uint8, 0..K-1, or 255 for ignore."""

from __future__ import annotations

import colorsys
from typing import Annotated

from pydantic import Field, model_validator

from gddctl.core.errors import ArtifactError
from gddctl.core.section import Section

IGNORE = 255  # the one ignore value inside gddctl; readers map every layout's own void onto it

Channel = Annotated[int, Field(ge=0, le=255)]


class SegClass(Section):
    """One class: its name and the RGB colour it is drawn in."""

    name: str
    color: tuple[Channel, Channel, Channel]


class ClassTable(Section):
    """The classes of a dataset or model, in the order of their train ids.

    >>> table = ClassTable(classes=(SegClass(name="sky", color=(128, 128, 128)), SegClass(name="road", color=(128, 64, 128))))
    >>> table.names, len(table)
    (('sky', 'road'), 2)
    """

    classes: tuple[SegClass, ...] = Field(min_length=1, max_length=255)

    @model_validator(mode="after")
    def _names_are_unique(self) -> ClassTable:
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"class names appear twice: {', '.join(twice)}")
        return self

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of train ids."""
        return tuple(item.name for item in self.classes)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours in the order of train ids."""
        return tuple(item.color for item in self.classes)


def distinct_color(index: int) -> tuple[int, int, int]:
    """An RGB colour for a class without one: steps of the golden angle around the colour circle.

    >>> distinct_color(0) != distinct_color(1)
    True
    """
    red, green, blue = colorsys.hsv_to_rgb((index * 0.618034) % 1.0, 0.65, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def require_same_classes(model: ClassTable, data: ClassTable, *, who: str) -> None:
    """The model's classes are the dataset's, in the same order; colours may differ.

    Args:
        model: the model's table.
        data: the dataset's.
        who: the model, as the message names it.

    Raises:
        ArtifactError: they are not; the message lists both.
    """
    if model.names != data.names:
        raise ArtifactError(
            f"{who} knows {len(model)} classes ({', '.join(model.names)}) but the dataset has {len(data)} ({', '.join(data.names)})",
            remedy="use a model and a dataset with the same classes in the same order",
        )
