"""POST /predict: an image in, its mask out, at the image's own size and upright."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gddctl.core.errors import DataError, GddctlError, ImageTooLarge
from gddctl.data.decode import from_pillow, open_limited
from gddctl.data.preprocess import Geometry
from gddctl.prove.predict import mask_of, network_input
from gddctl.serve.http.body import Cap, any_body, decompress, encoding_of
from gddctl.serve.http.house import House
from gddctl.serve.http.limits import MEBIBYTE, Holding, Limits
from gddctl.serve.http.openapi import IMAGE_BODY, answers
from gddctl.serve.http.pictures import OutputName, Picture, describe_classes, render
from gddctl.serve.http.refusal import Refusal, too_large
from gddctl.serve.http.served import Served
from gddctl.serve.http.uploads import image_bytes

_PLACE = "the image"
_CHANNELS = 3
_SCAN = b"\xff\xda"  # a JPEG's start of scan; in the compressed data itself, 0xff is always followed by 0x00 or a restart marker
_MAX_SCANS = 100  # libjpeg's own progressive script has ten; thousands of empty ones cost minutes of decoding
_INFLATED = 20  # times: encoded images hardly compress, and raw ones of photographs little

_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The mask in the form asked for.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@dataclass(frozen=True)
class Prepared:
    """An image on its way: what the model takes, how to go back, and the image itself where the answer shows it."""

    batch: NDArray[Any]
    geometry: Geometry
    image: NDArray[np.uint8] | None


def predict_routes(house: House) -> APIRouter:
    """``/predict``, ``/predict/{model}`` and what the page needs to know of the models."""
    router = APIRouter(tags=["Images"])
    documented = {**answers(400, 404, 408, 413, 415, 503), **_PICTURE}

    @router.post("/predict", responses=documented, response_class=Response, openapi_extra=IMAGE_BODY)
    @router.post("/predict/{model}", responses=documented, response_class=Response, openapi_extra=IMAGE_BODY)
    async def predict(
        request: Request,
        model: str | None = None,
        output: Annotated[
            OutputName | None, Query(description="Without it the Accept header decides; JSON where that leaves it open.")
        ] = None,
        opacity: Annotated[float, Query(ge=0, le=1, description="Of the colours in an overlay.")] = 0.55,
    ) -> Response:
        """Segment one image."""
        return await _predict(house, house.model(model), request, output or _accepted(request.headers.get("accept")), opacity)

    @router.get("/models", responses=answers(), response_class=JSONResponse)
    async def models() -> JSONResponse:
        """Names, states, classes and colours."""
        return JSONResponse([_shown(model) for model in house.models.values()])

    return router


async def _predict(house: House, model: Served, request: Request, output: OutputName, opacity: float) -> Response:
    encoding = encoding_of(request.headers.get("content-encoding"))
    with model.batcher.ticket() as ticket, house.memory.holding() as holding:
        body = await house.body(request, holding, nearly=ticket.nearly)
        ticket.place()

        async def work() -> Response:
            def prepare() -> Prepared:
                plain = body if encoding is None else decompress(body, encoding, _unpacked(len(body), house.limits), holding)
                data = image_bytes(plain, request.headers.get("content-type"))
                return _prepared(data, model, house.limits.pixels, holding, keep=output is OutputName.overlay)

            prepared = await house.in_pool(prepare)
            try:
                answer = await ticket.run(prepared.batch)
            except GddctlError as error:
                raise model.failed(error) from error
            picture = await house.in_pool(lambda: _finished(answer[0], prepared, model, output, opacity))
            return Response(picture.content, media_type=picture.media_type, headers=picture.headers)

        return await house.answer(request.receive, work())


def _unpacked(sent: int, limits: Limits) -> Cap:
    """What a compressed image may grow to: little files that grow large are work, not images."""
    most, general = max(MEBIBYTE, _INFLATED * sent), any_body(limits)
    return general if most >= general.bytes else Cap(most, f"the image is more than {_INFLATED} times what was sent; send it uncompressed")


def _prepared(data: bytes, model: Served, max_pixels: int, holding: Holding, *, keep: bool) -> Prepared:
    """Decode and resize; the pixels count for the memory held while they are there.

    Raises:
        Refusal: 413 too many pixels by the header, 400 not an image, 503 no memory left.
    """
    if data[:3] == b"\xff\xd8\xff" and data.count(_SCAN) > _MAX_SCANS:
        raise Refusal(
            400, "not an image", f"the image is a JPEG of more than {_MAX_SCANS} scans, expected one to decode in reasonable time"
        )
    try:
        with open_limited(data, _PLACE, max_pixels=max_pixels) as opened:
            holding.take(_CHANNELS * opened.width * opened.height)
            image = from_pillow(opened, _PLACE, remedy="send a PNG or a JPEG")
    except ImageTooLarge as error:
        raise too_large(f"the image is {error.width} x {error.height}, expected at most {error.limit} pixels (--max-pixels)") from error
    except DataError as error:
        words = re.sub(r"<[^>]*>", "it", error.message)  # Pillow names its own objects
        raise Refusal(400, "not an image", f"{words}; send a PNG, a JPEG or another common format") from error
    array, geometry = network_input(image, model.info)
    return Prepared(array[None], geometry, image if keep else None)


def _finished(answer: NDArray[Any], prepared: Prepared, model: Served, output: OutputName, opacity: float) -> Picture:
    try:
        mask = mask_of(answer, prepared.geometry, model.info)
    except GddctlError as error:  # NaN or a class without a name: the model's fault
        raise model.failed(error) from error
    return render(output, mask, model.info.classes, prepared.image, opacity, model.name)


def _accepted(header: str | None) -> OutputName:
    """The first kind in the Accept header that there is: PNG of ids, JPEG of an overlay, JSON; and JSON when it leaves that open.

    >>> _accepted("image/png").value, _accepted("image/jpeg, */*").value, _accepted("*/*").value
    ('ids', 'overlay', 'json')
    """
    kinds = {"image/png": OutputName.ids, "image/*": OutputName.ids, "image/jpeg": OutputName.overlay}
    for kind in (header or "").lower().split(","):
        name = kind.partition(";")[0].strip()
        if name in kinds:
            return kinds[name]
        if name in ("application/json", "*/*"):
            break
    return OutputName.json


def _shown(model: Served) -> dict[str, Any]:
    height, width = model.info.preprocess.size
    classes = describe_classes(model.info.classes)
    return {"name": model.name, "state": model.state, "height": height, "width": width, "classes": classes}
