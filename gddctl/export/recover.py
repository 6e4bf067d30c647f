"""Where INT8 loses, block by block in mIoU points and SQNR; and the worst blocks left in high precision until the gate passes."""

from __future__ import annotations

import logging
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gddctl.core.artifact.calibration import CalibrationRecord
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import Limits, Target
from gddctl.core.errors import EnvironmentMissing
from gddctl.core.reports.parity import Rung
from gddctl.core.reports.recovery import BlockLoss, Recovery, Trade
from gddctl.data.dataset import SegDataset
from gddctl.export.graph_file import load_artifact
from gddctl.export.int8 import quantize
from gddctl.export.onnx_ops import choice_of, ops_of
from gddctl.prove.parity import Pair, answering_of, compare
from gddctl.prove.predict import network_input
from gddctl.quant.naming import module_of
from gddctl.runtime.open import open_runtime

log = logging.getLogger(__name__)

RUNS_HERE: tuple[Target, ...] = ("ort-cpu", "openvino")  # targets whose latency a machine without a GPU can tell
_WARM_UP, _TIMED = 3, 15  # calls; a rough median to choose by, the bench command measures properly
_AT_ONCE = 4  # files opened together; each holds its activations


class Subject:
    """One FP32 student, its ranges, and the held-out training images on which its INT8 forms are compared."""

    def __init__(self, fp32: Artifact, record: CalibrationRecord, images: SegDataset, target: Target, limits: Limits) -> None:
        self.fp32, self.record, self.images, self.target = fp32, record, images, target
        # Latency and size are judged on the finished file; what is asked here is what the rounding did.
        self.limits = limits.model_copy(update={"max_p95_ms": None, "max_size_mb": None})

    def blocks(self) -> dict[str, frozenset[str]]:
        """Outputs of the quantisable convolutions by block, in graph order."""
        model = load_artifact(self.fp32)
        classifiers = choice_of(model).float_convs
        found: dict[str, set[str]] = {}
        for op in ops_of(model.graph):
            if op.kind == "Conv" and op.output not in classifiers:
                found.setdefault(block_of(op.weight or op.output), set()).add(op.output)
        return {name: frozenset(convs) for name, convs in found.items()}

    def quantised(self, out: Path, keep: frozenset[str]) -> Artifact:
        """INT8 with the convolutions ``keep`` left out."""
        return quantize(self.fp32, self.record, out, target=self.target, keep=keep)

    def judge(self, candidates: Sequence[Artifact]) -> list[Rung]:
        """Every candidate against FP32 on the held-out images; FP32 answers each image once for all of them."""
        with ExitStack() as stack:
            reference = stack.enter_context(open_runtime(self.fp32.path))
            tested = {
                str(place): stack.enter_context(open_runtime(item.path, allow_foreign_target=True)) for place, item in enumerate(candidates)
            }
            answering = {"fp32": answering_of(reference), **{key: answering_of(runtime) for key, runtime in tested.items()}}
            pairs = [Pair("fp32", key, logits=True) for key in tested]
            compared = compare(pairs, answering, self.images, range(len(self.images)))
            return [
                comparison.rung(reference, runtime, self.limits, images=len(self.images))
                for comparison, runtime in zip(compared, tested.values(), strict=True)
            ]

    def trade(self, candidate: Artifact, kept: tuple[str, ...]) -> Trade:
        """The candidate's row."""
        return Trade(kept, self.judge([candidate])[0], candidate.path.stat().st_size / 1e6, self._latency(candidate))

    def _latency(self, candidate: Artifact) -> float | None:
        if self.target not in RUNS_HERE:
            return None
        try:
            runtime = open_runtime(candidate.path)
        except EnvironmentMissing:  # its runtime is not installed; the answers were judged by another
            return None
        with runtime:
            batch = network_input(self.images[0].image, runtime.info)[0][None]
            times = []
            for _ in range(_WARM_UP + _TIMED):
                start = time.perf_counter()
                runtime.run(batch)
                times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times[_WARM_UP:])


def block_of(weight: str) -> str:
    """The block that a convolution's kernel belongs to: its module's path up to the first number.

    >>> [block_of(f"segmenter.{name}.weight") for name in ("encoder.layer2.0.downsample.0", "head.branches.1.conv.0", "encoder.conv1")]
    ['encoder.layer2.0', 'head.branches.1', 'encoder.conv1']
    """
    path = module_of(weight)
    match = re.match(r"(.*?\.\d+)(\.|$)", path)
    return match.group(1) if match else path


def sensitivity(subject: Subject) -> tuple[BlockLoss, ...]:
    """Quantise one block at a time; worst first, by mIoU and then by SQNR."""
    blocks = list(subject.blocks().items())
    every = frozenset[str]().union(*(convs for _, convs in blocks))
    losses = []
    with tempfile.TemporaryDirectory(prefix=".sensitivity-", dir=subject.fp32.path.parent) as folder:
        for start in range(0, len(blocks), _AT_ONCE):
            group = blocks[start : start + _AT_ONCE]
            files = [subject.quantised(Path(folder) / f"{place}.onnx", every - convs) for place, (_, convs) in enumerate(group)]
            for (name, convs), rung in zip(group, subject.judge(files), strict=True):
                losses.append(BlockLoss(name, len(convs), rung.miou_delta_points, rung.agreement, rung.sqnr_db))
            log.info("sensitivity for %s: %d of %d blocks", subject.target, len(losses), len(blocks))
    return tuple(sorted(losses, key=lambda loss: (round(loss.miou_delta_points, 3), loss.sqnr_db or 0.0)))


def recover(subject: Subject, plain: Artifact, *, losses: Sequence[BlockLoss] | None = None) -> tuple[Artifact, Recovery]:
    """Leave the worst blocks in high precision, one more at a time, until the gate passes.

    Args:
        subject: what is quantised, and how it is judged.
        plain: the INT8 file; rewritten in place with the blocks kept, once they suffice.
        losses: a sensitivity table made before; None makes it.

    Returns:
        The file to ship and how it came about. Where nothing suffices the plain file stands, and the recovery is falsy.
    """
    first = subject.trade(plain, ())
    if first.rung.passed:
        return plain, Recovery(subject.target, len(subject.images), tuple(losses or ()), (first,))
    log.warning("int8 for %s fails its gate on held-out training images: %s", subject.target, "; ".join(first.rung.failures))
    losses = tuple(losses) if losses is not None else sensitivity(subject)
    blocks = subject.blocks()
    trades, kept, artifact = [first], [], plain
    with tempfile.TemporaryDirectory(prefix=".recover-", dir=plain.path.parent) as folder:
        for loss in losses[:-1]:  # with the last block kept too there would be no INT8 left
            kept.append(loss.block)
            convs = frozenset[str]().union(*(blocks[name] for name in kept))
            trade = subject.trade(subject.quantised(Path(folder) / "mixed.onnx", convs), tuple(kept))
            trades.append(trade)
            log.info("recovery: %d blocks in high precision: mIoU %+.2f points", len(kept), trade.rung.miou_delta_points)
            if trade.rung.passed:
                artifact = subject.quantised(plain.path, convs)
                break
    return artifact, Recovery(subject.target, len(subject.images), losses, tuple(trades))
