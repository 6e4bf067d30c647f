"""Several methods at once: their terms side by side, named apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from gddctl.distill.methods.protocol import Distiller
from gddctl.models.protocol import Outputs


class CombinedDistiller(nn.Module):
    """Every method's terms under its own name; of a kind that stands there twice, ``cwd_1``, ``cwd_2``.

    Args:
        methods: kind and distiller, in the order of the settings.
    """

    def __init__(self, methods: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        kinds = [kind for kind, _ in methods]
        total, seen = Counter(kinds), Counter[str]()
        named: dict[str, nn.Module] = {}
        for kind, distiller in methods:
            seen[kind] += 1
            named[kind if total[kind] == 1 else f"{kind}_{seen[kind]}"] = distiller
        self.kinds = dict(zip(named, kinds, strict=True))
        self.methods = nn.ModuleDict(named)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """All weighted terms."""
        found: dict[str, Tensor] = {}
        for name, method in self.methods.items():
            terms: Mapping[str, Tensor] = method(student, teacher, labels)
            found.update({self._renamed(name, key): term for key, term in terms.items()})
        return found

    def diagnostics(self) -> dict[str, float]:
        """Everybody's."""
        return {
            self._renamed(name, key): value
            for name, method in self.methods.items()
            for key, value in cast(Distiller, method).diagnostics().items()
        }

    def _renamed(self, name: str, key: str) -> str:
        """``kind.part`` as ``name.part``, ``kind/number`` as ``name/number``."""
        return name + key.removeprefix(self.kinds[name])
