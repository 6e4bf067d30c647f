"""Names in drawings: as large as they fit, on two lines before they get too small, and never cut by the edge."""

from __future__ import annotations

from gddctl.report.svg import INK, element, label, text

_ADVANCE = 0.64  # of the font's size: the mean width of a bold letter in the widest of the page's fonts
_SMALLEST = 9.5  # pixels
_BREAKS = ", -._/"


def name(
    x: float,
    y: float,
    words: str,
    width: float,
    *,
    anchor: str = "end",
    fill: str = INK,
    size: float = 12.0,
    lines: int = 2,
    gap: float = 12.0,
    weight: str | None = "600",
) -> str:
    """``words`` within ``width`` pixels; the last line stands at ``y``, one more ``gap`` above. What does not fit is left out within."""
    rows, fitted = fit(words, width, size=size, lines=lines)
    top = y - gap * (len(rows) - 1)
    drawn = [label(x, top + gap * number, row, anchor=anchor, size=fitted, fill=fill, weight=weight) for number, row in enumerate(rows)]
    return element("g", element("title", text(words)) + "".join(drawn))


def fit(words: str, width: float, *, size: float = 12.0, lines: int = 2) -> tuple[list[str], float]:
    """The lines and their font size.

    >>> fit("student", 200), fit("a-model-of-a-long-name-int8-ort-cpu.logits, batch 8", 200, size=12)[0]
    ((['student'], 12.0), ['a-model-of-a-long-name-', 'int8-ort-cpu.logits, batch 8'])
    """
    rows = [words]
    if lines > 1 and _ADVANCE * size * len(words) > width:
        at = _middle(words)
        rows = [words[:at].rstrip(), words[at:].lstrip()] if at else rows
    longest = max(1, *map(len, rows))
    fitted = max(_SMALLEST, min(size, width / (_ADVANCE * longest)))
    most = int(width / (_ADVANCE * fitted) + 1e-6)
    return [_elided(row, most) for row in rows], fitted


def _middle(words: str) -> int:
    """Where to break: after a separator, nearest the middle; 0 where there is none. A comma counts as nearer than it is."""
    places = [index + 1 for index, letter in enumerate(words[:-1]) if letter in _BREAKS]
    return min(places, key=lambda at: abs(at - len(words) / 2) - (4 if words[at - 1] == "," else 0), default=0)


def _elided(words: str, most: int) -> str:
    if len(words) <= most:
        return words
    keep = max(2, most - 1)
    return f"{words[: (keep + 1) // 2]}…{words[len(words) - keep // 2 :]}"
