"""A bundle on PyTorch: the reference that every exported file is held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.core.artifact.card_io import read_card, require_plain
from gddctl.core.errors import EnvironmentMissing, RunFailed
from gddctl.models.checkpoint import load_network
from gddctl.runtime.cpu import this_cpu, usable_cores
from gddctl.runtime.describe import info_of_card
from gddctl.runtime.gpu_facts import gpu_facts
from gddctl.runtime.protocol import check_input
from gddctl.runtime.timed import Spans


class TorchRuntime:
    """A student in FP32, eager mode, eval. See :class:`gddctl.runtime.protocol.Runtime`."""

    def __init__(self, folder: Path, *, device: Literal["cpu", "cuda"] = "cpu", threads: int | None = None) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EnvironmentMissing(
                f"PyTorch {torch.__version__} sees no CUDA device here", remedy="see: gddctl doctor; or choose the device cpu"
            )
        self._folder, self._device = folder, torch.device(device)
        self._threads = threads or usable_cores()
        self._model, card = self._load()
        self.info, self.sha256 = info_of_card(card), card.weights_sha256
        self.backend = f"torch-{device}"

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Logits of one batch; see the protocol for shapes."""
        batch = check_input(batch, self.info, self._folder.name)
        if self._model is None:
            self._model, _ = self._load()
        try:
            with torch.inference_mode(), cpu_threads(self._threads), honest_fp32():
                logits = self._model.predict_logits(torch.tensor(batch, device=self._device))  # copied: the caller's array stays out of it
                answer: NDArray[Any] = logits.float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise RunFailed(f"{self._folder}: not enough memory for a batch of {batch.shape}", remedy="use a smaller batch") from error
        return answer

    def run_timed(self, batch: NDArray[Any]) -> tuple[NDArray[Any], Spans | None]:
        """See :class:`gddctl.runtime.timed.Timed`; CUDA events tell the parts."""
        if self._device.type == "cpu":
            return self.run(batch), None
        batch = check_input(batch, self.info, self._folder.name)
        if self._model is None:
            self._model, _ = self._load()
        make: Any = torch.cuda.Event  # its constructor is not typed
        marks = [make(enable_timing=True) for _ in range(4)]
        with torch.inference_mode(), honest_fp32():
            marks[0].record()
            images = torch.tensor(batch, device=self._device)
            marks[1].record()
            logits = self._model.predict_logits(images).float()
            marks[2].record()
            answer: NDArray[Any] = logits.cpu().numpy()
            marks[3].record()
        torch.cuda.synchronize()
        return answer, Spans.between(marks, lambda start, end: float(start.elapsed_time(end)), "CUDA events")

    def environment(self) -> dict[str, str]:
        """Device, versions, threads, instruction set."""
        found = {
            "backend": self.backend,
            "provider": "eager",
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": str(self._threads),
            "cpu": this_cpu().describe(),
        }
        if self._device.type == "cuda":
            found |= {**gpu_facts(), "gpu": torch.cuda.get_device_name(self._device)}
        return found

    def __enter__(self) -> Self:
        if self._model is None:
            self._model, _ = self._load()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._model = None

    def _load(self) -> Any:
        require_plain(self._folder, read_card(self._folder), what="run on images")
        model, card = load_network(self._folder)
        return model.to(self._device).eval(), card


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Torch on ``count`` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def honest_fp32() -> Iterator[None]:
    """No TF32 in cuDNN convolutions: a reference keeps all 23 bits of its mantissas."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
