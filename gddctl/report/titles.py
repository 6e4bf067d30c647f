"""What each row of a latency report is called: its model, and whatever else tells it from the other rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import get_args

from gddctl.core.config.sections import Graph, Precision
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyRow
from gddctl.report.wording import model_title

_ROLES = ("teacher", "baseline", "student")
_DEVICES = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT", "openvino": "OpenVINO"}


def names_of_rows(rows: Sequence[LatencyRow], scores: Mapping[str, EvalReport]) -> list[str]:
    """The name that ``eval.json`` has for each row's very file; else the row's own."""
    known = {report.sha256: name for name, report in scores.items()}
    return [known.get(row.sha256, row.model) for row in rows]


def titles_of_rows(rows: Sequence[LatencyRow], names: Sequence[str], scores: Mapping[str, EvalReport]) -> list[str]:
    """One title per row, no two the same as long as anything in the rows differs."""
    shared = _shared(names)
    titles = [
        (model_title(name) if name in scores else _plain(name[shared:])) + (", PyTorch" if row.backend.startswith("torch") else "")
        for name, row in zip(names, rows, strict=True)
    ]
    ways: tuple[Callable[[LatencyRow], str], ...] = (
        lambda row: backend_title(row.backend),
        lambda row: f"batch {row.batch}",
        lambda row: f"{row.input_size[1]} × {row.input_size[0]}",
        lambda row: "under load" if row.load is not None else "",
        lambda row: "" if row.threads is None else f"{row.threads} thread{'s' if row.threads != 1 else ''}",
        lambda row: "CUDA graph" if row.cuda_graph else "",
        lambda row: row.file,
    )
    for way in ways:
        twice = {title for title in titles if titles.count(title) > 1}
        differs = {title for title in twice if len({way(row) for row, own in zip(rows, titles, strict=True) if own == title}) > 1}
        titles = [f"{title}, {way(row)}" if title in differs and way(row) else title for row, title in zip(rows, titles, strict=True)]
    return titles


def _shared(names: Sequence[str]) -> int:
    """Letters of the words, up to hyphens, that all names begin with: they tell nothing apart. No name is left empty."""
    words = [name.split("-") for name in names]
    if len(set(names)) < 2:
        return 0
    same = list(takewhile(lambda column: len(set(column)) == 1, zip(*(own[:-1] for own in words), strict=False)))
    return sum(len(column[0]) + 1 for column in same)


def _plain(name: str) -> str:
    """A name by our own rule in words, whole or without its beginning; any other as it is.

    >>> _plain("student-fp32-any.logits"), _plain("int8-tensorrt.deploy"), _plain("my-model")
    ('Student FP32, ONNX', 'INT8 for tensorrt, deploy graph', 'my-model')
    """
    first = name.partition("-")[0]
    if first in get_args(Precision) and name.endswith(tuple(f".{graph}" for graph in get_args(Graph))):
        return model_title(f"student-{name}").removeprefix("Student ")
    return model_title(name) if first in _ROLES else name


def backend_title(backend: str) -> str:
    """A backend in words.

    >>> backend_title("onnxruntime-cpu"), backend_title("rtx-cuda")
    ('ONNX Runtime CPU', 'TensorRT-RTX CUDA')
    """
    library, _, device = backend.partition("-")
    words = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch", "openvino": "OpenVINO", "tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
    found = words.get(library)
    return backend if found is None else f"{found} {_DEVICES.get(device, device)}".strip()
