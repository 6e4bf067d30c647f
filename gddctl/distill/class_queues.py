"""Rings of unit vectors, one per class, that a batch fills and a loss compares with. Buffers, so that a resume finds them again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassQueues(nn.Module):
    """``classes`` rings of ``length`` unit vectors; filled at first with random directions, as in the released CIRKD code.

    Shape: ``vectors`` (classes, length, channels) float32; ``heads`` (classes,) int64, the place written next.
    """

    vectors: Tensor
    heads: Tensor

    def __init__(self, classes: int, length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("vectors", F.normalize(torch.randn(classes, length, channels), dim=-1))
        self.register_buffer("heads", torch.zeros(classes, dtype=torch.int64))

    @torch.no_grad()
    def push(self, vectors: Tensor, valid: Tensor) -> None:
        """Write the valid ones of ``vectors``, in their order, over the oldest. Shape: (classes, n, channels), (classes, n) bool."""
        length = self.vectors.shape[1]
        rank = valid.long().cumsum(1) - 1  # among the valid ones
        counts = valid.sum(1)
        kept = valid & (rank >= counts[:, None] - length)  # more than the ring holds: the last ones, each place written once
        rows, columns = kept.nonzero(as_tuple=True)
        places = (self.heads[rows] + rank[rows, columns]) % length
        self.vectors[rows, places] = vectors[rows, columns].to(self.vectors.dtype)
        self.heads.copy_((self.heads + counts) % length)

    def sample(self, per_class: int, generator: torch.Generator | None) -> Tensor:
        """The same random places of every ring. Shape: -> (classes * min(per_class, length), channels), a copy."""
        length, channels = self.vectors.shape[1:]
        chosen = torch.randperm(length, device=self.vectors.device, generator=generator)[:per_class]
        return self.vectors[:, chosen].reshape(-1, channels)


def region_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The mean vector of every class in every image, as a unit vector, and whether the class is there.

    Shape: (B, C, h, w), (B, h, w) int64 -> (classes, B, C), (classes, B) bool. Labels outside 0..classes-1 belong to no class.
    """
    member = _members(labels, classes)  # (B, K, M)
    sums = member.to(features.dtype) @ features.flatten(2).transpose(1, 2)  # (B, K, C)
    return F.normalize(sums, dim=-1).transpose(0, 1), member.any(-1).T


def random_pixels(
    features: Tensor, labels: Tensor, classes: int, per_image: int, generator: torch.Generator | None, *, first_places: bool = False
) -> tuple[Tensor, Tensor]:
    """Up to ``per_image`` random pixels of every class in every image, and which of them are real.

    With ``first_places``, not of the class but of as many first places of the map as the class has pixels: the released CIRKD code
    takes the drawn ranks for places.

    Shape: (B, C, h, w), (B, h, w) int64 -> (classes, B * n, C), (classes, B * n) bool, n at most ``per_image``.
    """
    batch, channels = features.shape[:2]
    member = _members(labels, classes)
    if first_places:
        member = torch.arange(member.shape[-1], device=member.device) < member.sum(-1, keepdim=True)
    order = torch.rand((batch, 1, member.shape[-1]), device=features.device, generator=generator)
    score, places = torch.where(member, order, -1.0).topk(min(per_image, member.shape[-1]), dim=-1)  # (B, K, n)
    rows = features.flatten(2).transpose(1, 2)  # (B, M, C)
    count = places.shape[-1]
    taken = rows.gather(1, places.flatten(1)[..., None].expand(-1, -1, channels)).view(batch, classes, count, channels)
    return taken.transpose(0, 1).reshape(classes, batch * count, channels), (score >= 0).transpose(0, 1).reshape(classes, batch * count)


def gathered(vectors: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Those of all processes, in their order, so that every process keeps the same rings."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return vectors, valid
    world = torch.distributed.get_world_size()
    found = []
    for mine in (vectors.contiguous(), valid.to(torch.uint8).contiguous()):
        everyones = [torch.empty_like(mine) for _ in range(world)]
        torch.distributed.all_gather(everyones, mine)
        found.append(torch.cat(everyones, dim=1))
    return found[0], found[1].bool()


def _members(labels: Tensor, classes: int) -> Tensor:
    """Shape: (B, h, w) -> (B, classes, h * w) bool."""
    return labels.flatten(1)[:, None] == torch.arange(classes, device=labels.device)[None, :, None]
