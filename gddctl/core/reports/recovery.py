"""What INT8 costs block by block, and what leaving the worst blocks in high precision buys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gddctl.core.reports.parity import Rung

RECOVERY_SCHEMA = 1


@dataclass(frozen=True)
class BlockLoss:
    """The student with this block alone in INT8, against FP32."""

    block: str
    convs: int
    miou_delta_points: float
    agreement: float  # 0..1
    sqnr_db: float | None


@dataclass(frozen=True)
class Trade:
    """An INT8 file with some blocks left in high precision, as measured on held-out training images."""

    kept: tuple[str, ...]  # blocks
    rung: Rung
    size_mb: float  # 10^6 bytes
    latency_ms: float | None  # median on this machine; None where the target does not run here


@dataclass(frozen=True)
class Recovery:
    """Truthy when the gate passed in the end."""

    target: str
    images: int  # held-out training images
    losses: tuple[BlockLoss, ...]  # worst first
    trades: tuple[Trade, ...]  # plain INT8 first

    def __bool__(self) -> bool:
        return self.trades[-1].rung.passed

    @property
    def kept(self) -> tuple[str, ...]:
        """The blocks left in high precision in the file; none where nothing sufficed, since then the plain file stands."""
        return self.trades[-1].kept if self else ()

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {
            "schema": RECOVERY_SCHEMA,
            "passed": bool(self),
            "target": self.target,
            "images": self.images,
            "losses": [asdict(loss) for loss in self.losses],
            "trades": [
                {"kept": list(trade.kept), "size_mb": trade.size_mb, "latency_ms": trade.latency_ms, "rung": trade.rung.to_json()}
                for trade in self.trades
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Recovery:
        """Read back :meth:`to_json`; the verdict is computed anew."""
        return cls(
            target=value["target"],
            images=value["images"],
            losses=tuple(BlockLoss(**loss) for loss in value["losses"]),
            trades=tuple(
                Trade(tuple(trade["kept"]), Rung.from_json(trade["rung"]), trade["size_mb"], trade["latency_ms"])
                for trade in value["trades"]
            ),
        )
