"""What each row of a latency report is called: its model, and whatever else tells it from the other rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyRow
from gddctl.report.wording import model_title

_DEVICES = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT", "openvino": "OpenVINO"}


def names_of_rows(rows: Sequence[LatencyRow], scores: Mapping[str, EvalReport]) -> list[str]:
    """The name that ``eval.json`` has for each row's very file; else the row's own."""
    known = {report.sha256: name for name, report in scores.items()}
    return [known.get(row.sha256, row.model) for row in rows]


def titles_of_rows(rows: Sequence[LatencyRow], names: Sequence[str], scores: Mapping[str, EvalReport]) -> list[str]:
    """One title per row, no two the same as long as anything in the rows differs."""
    titles = [
        (model_title(name) if name in scores else name) + (", PyTorch" if row.backend.startswith("torch") else "")
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


def backend_title(backend: str) -> str:
    """A backend in words.

    >>> backend_title("onnxruntime-cpu"), backend_title("rtx-cuda")
    ('ONNX Runtime CPU', 'TensorRT-RTX CUDA')
    """
    library, _, device = backend.partition("-")
    words = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch", "openvino": "OpenVINO", "tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
    found = words.get(library)
    return backend if found is None else f"{found} {_DEVICES.get(device, device)}".strip()
