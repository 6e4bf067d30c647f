"""How an image file becomes the network's input: the one description that training, export, serving and the device share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gddctl.core.section import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Side = Annotated[int, Field(ge=8, le=16384)]

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixel / 255; torchvision's published normalisation
IMAGENET_STD = (0.229, 0.224, 0.225)


class PreprocessSpec(Section):
    """Decode (Pillow, EXIF orientation applied, 8-bit), resize to ``size``, scale to 0..1, subtract mean, divide by std.

    ``stretch`` resizes both sides freely; ``letterbox`` keeps the aspect ratio and pads right and below with ``pad_value``.
    """

    size: tuple[Side, Side]  # (height, width) of the network's input, pixels
    resize: Literal["stretch", "letterbox"] = "stretch"
    interpolation: Literal["area", "bilinear"] = "area"  # when shrinking; growing is always bilinear
    mean: tuple[Share, Share, Share] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    channel_order: Literal["rgb", "bgr"] = "rgb"
    pad_value: Annotated[int, Field(ge=0, le=255)] = 114  # letterbox grey; close to the ImageNet mean
