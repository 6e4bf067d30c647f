"""A network from another library behind our seam: images of any size in, ``Outputs`` in the order of our classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.core.artifact.network import ImportedNetwork, MmsegNetwork, SmpNetwork, TorchvisionNetwork, TransformersNetwork
from gddctl.core.errors import ArtifactError
from gddctl.models import mmseg
from gddctl.models.from_smp import build_smp
from gddctl.models.from_torchvision import build_torchvision
from gddctl.models.from_transformers import build_transformers
from gddctl.models.protocol import Outputs


class Body(Protocol):
    """What a family's wrapper offers: an ``nn.Module`` from images that fit to its own logits, and the features that it has.

    One whose library brings logits to the images' size with the corners aligned says ``align_corners = True``.
    """

    def __call__(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised its own way."""
        ...


class External(nn.Module):
    """An imported network, answering like one of ours. It teaches and is evaluated; it is neither trained nor exported.

    Args:
        body: see :class:`Body`; its state dict is what the bundle holds.
        order: our class k is channel ``order[k]`` of its logits.
        features: channels of the features that it promises to give.
        multiple: images are resized to the next multiple of this: resized, not padded, so that every map covers the whole image.
        size: or to this (height, width), where it takes no other.
    """

    def __init__(
        self,
        body: nn.Module,
        order: Sequence[int],
        features: Mapping[str, int],
        *,
        multiple: int = 1,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.num_classes = len(order)
        self.feature_channels = dict(features)
        self._multiple, self._size = multiple, size
        self.register_buffer("_order", torch.tensor(tuple(order), dtype=torch.int64), persistent=False)

    _order: Tensor

    def forward(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised as the bundle's card says. Logits stay at the network's own size."""
        outputs = cast(Body, self.body)(fitted(images, self._multiple, self._size))
        if missing := [name for name in self.feature_channels if name not in outputs.features]:
            raise ArtifactError(
                f"the imported network gives no {', '.join(missing)} for images of {images.shape[-2]} x {images.shape[-1]}",
                remedy="choose a crop of which each side is a multiple of 32, or a method that compares logits",
            )
        features = {name: outputs.features[name] for name in self.feature_channels}
        return Outputs(logits=outputs.logits.index_select(1, self._order), features=features)

    def predict_logits(self, images: Tensor) -> Tensor:
        """Logits at the input's size, enlarged as the network's own library does. Shape: (B, 3, H, W) -> (B, K, H, W)."""
        size = (images.shape[-2], images.shape[-1])
        logits = self(images).logits
        if getattr(self.body, "align_corners", False):  # to the images as the network saw them; what `fitted` did is undone below
            logits = F.interpolate(logits, size=fitted_size(size, self._multiple, self._size), mode="bilinear", align_corners=True)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def plain_state_dict(self) -> dict[str, Tensor]:
        """The state under the library's own key names; copies, because some networks use one tensor twice."""
        return {key: value.detach().clone() for key, value in self.body.state_dict().items()}


def build_external(network: ImportedNetwork) -> External:
    """The network of an imported bundle, with random weights.

    Raises:
        EnvironmentMissing: its library is not installed.
        ArtifactError: the library does not know such a network.
    """
    return External(build_body(network), network.order, network.features, multiple=network.multiple, size=network.size)


def build_body(network: ImportedNetwork) -> nn.Module:
    """The network itself, without what it trained with (auxiliary heads)."""
    match network:
        case SmpNetwork():
            return build_smp(network.arch, network.encoder, network.outputs, network.options)
        case TorchvisionNetwork():
            return build_torchvision(network.arch, network.outputs)
        case TransformersNetwork():
            return build_transformers(network.config)
        case MmsegNetwork():
            return mmseg.MmsegNetwork(network.arch, network.depth, network.outputs, channels=network.channels)
        case other:
            assert_never(other)


def fitted(images: Tensor, multiple: int, size: tuple[int, int] | None) -> Tensor:
    """``images`` at ``size``, or at the next ``multiple``; the very same where they fit.

    Shape: (B, 3, H, W) -> (B, 3, H', W').
    """
    given = (images.shape[-2], images.shape[-1])
    wanted = fitted_size(given, multiple, size)
    if wanted == given:
        return images
    return F.interpolate(images, size=wanted, mode="bilinear", align_corners=False)


def fitted_size(given: tuple[int, int], multiple: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of :func:`fitted` images."""
    return size or (-(-given[0] // multiple) * multiple, -(-given[1] // multiple) * multiple)
