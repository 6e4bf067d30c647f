"""The Open Inference Protocol's routes: health, metadata, repository index, statistics and inference."""

from __future__ import annotations

import json
import zlib
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gddctl import __version__
from gddctl.core.errors import GddctlError
from gddctl.serve.http.body import Cap, any_body, decompress, encoding_of
from gddctl.serve.http.house import House
from gddctl.serve.http.infer_codec import InferRequest, json_end, parse_request, render_answer
from gddctl.serve.http.infer_json import HEADER, longest_body
from gddctl.serve.http.limits import Holding
from gddctl.serve.http.openapi import INDEX_BODY, INFER_BODY, answers
from gddctl.serve.http.refusal import malformed, unsupported
from gddctl.serve.http.served import VERSION, Served

_INDEX = Cap(HEADER, f"a request for the index is larger than {HEADER} bytes")
EXTENSIONS = ["binary_tensor_data", "model_repository", "model_configuration", "statistics"]
_JSON_LENGTH = "inference-header-content-length"
_LOOP_BYTES = 1 << 16  # JSON of this many bytes is parsed on the event loop; more of it goes to the pool

_WRITTEN = 48  # bytes held for each number of an answer in JSON: itself, its pointer and its text


def protocol_routes(house: House) -> APIRouter:
    """All routes under /v2."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    _add_infer(router, house)  # first: routes are tried in order, and this is the one that is in a hurry
    _add_health(router, house)
    _add_metadata(router, house)
    _add_repository(router, house)
    return router


def _add_health(router: APIRouter, house: House) -> None:
    @router.get("/health/live", responses=answers(), response_class=Response)
    async def live() -> Response:
        """The server runs."""
        return Response(status_code=200)

    @router.get("/health/ready", responses=answers(503), response_class=Response)
    async def ready() -> Response:
        """Every model is loaded and warm, and the server is not closing."""
        return Response(status_code=200 if house.ready else 503)

    @router.get("/models/{model}/ready", responses=answers(404, 503), response_class=Response)
    @router.get("/models/{model}/versions/{version}/ready", responses=answers(404, 503), response_class=Response)
    async def model_ready(model: str, version: str | None = None) -> Response:
        """The model is loaded and warm."""
        found = house.model(model, version)
        return Response(status_code=200 if found.state == "READY" and not house.draining else 503)


def _add_metadata(router: APIRouter, house: House) -> None:
    @router.get("", responses=answers(), response_class=JSONResponse)
    async def server_metadata() -> JSONResponse:
        """What this server is and which extensions it speaks."""
        return JSONResponse({"name": "gddctl", "version": __version__, "extensions": EXTENSIONS})

    @router.get("/models/stats", responses=answers(), response_class=JSONResponse)
    async def all_stats() -> JSONResponse:
        """Statistics of every model."""
        return JSONResponse({"model_stats": [_stats(model) for model in house.models.values()]})

    @router.get("/models/{model}", responses=answers(404), response_class=JSONResponse)
    @router.get("/models/{model}/versions/{version}", responses=answers(404), response_class=JSONResponse)
    async def model_metadata(model: str, version: str | None = None) -> JSONResponse:
        """The model's tensors."""
        found = house.model(model, version)
        return JSONResponse(
            {
                "name": found.name,
                "versions": [VERSION],
                "platform": found.platform,
                "inputs": [found.input.to_json()],
                "outputs": [found.output.to_json()],
            }
        )

    @router.get("/models/{model}/config", responses=answers(404), response_class=JSONResponse)
    @router.get("/models/{model}/versions/{version}/config", responses=answers(404), response_class=JSONResponse)
    async def model_config(model: str, version: str | None = None) -> JSONResponse:
        """How the model is served, in the form of Triton's model configuration; its lineage and classes among the parameters."""
        return JSONResponse(_config(house, house.model(model, version)))

    @router.get("/models/{model}/stats", responses=answers(404), response_class=JSONResponse)
    @router.get("/models/{model}/versions/{version}/stats", responses=answers(404), response_class=JSONResponse)
    async def model_stats(model: str, version: str | None = None) -> JSONResponse:
        """What the model has done since the start."""
        return JSONResponse({"model_stats": [_stats(house.model(model, version))]})


def _add_repository(router: APIRouter, house: House) -> None:
    @router.post("/repository/index", responses=answers(400, 408, 413), response_class=JSONResponse, openapi_extra=INDEX_BODY)
    async def repository_index(request: Request) -> JSONResponse:
        """The models and whether they are ready."""
        with house.memory.holding() as holding:
            only_ready = _only_ready(await house.body(request, holding, _INDEX))
        found = [model for model in house.models.values() if model.state == "READY" or not only_ready]
        return JSONResponse([{"name": model.name, "version": VERSION, "state": model.state, "reason": ""} for model in found])

    @router.post("/repository/models/{model}/load", responses=answers(400), response_class=JSONResponse)
    @router.post("/repository/models/{model}/unload", responses=answers(400), response_class=JSONResponse)
    async def load(model: str) -> JSONResponse:
        """Refused: what is served is decided at the start."""
        raise unsupported("models are chosen when the server starts; they are not loaded or unloaded later")


def _only_ready(body: bytes) -> bool:
    try:
        wanted = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise malformed("the request is not JSON") from error
    if not isinstance(wanted, dict) or not isinstance(wanted.get("ready", False), bool):
        raise malformed("expected an object with 'ready': true or false")
    return bool(wanted.get("ready", False))


def _add_infer(router: APIRouter, house: House) -> None:
    documented = answers(400, 404, 408, 413, 415, 503)

    @router.post("/models/{model}/infer", responses=documented, response_class=JSONResponse, openapi_extra=INFER_BODY)
    @router.post("/models/{model}/versions/{version}/infer", responses=documented, response_class=JSONResponse, openapi_extra=INFER_BODY)
    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        """Run the model on tensors."""
        return await _infer(house, house.model(model, version), request)


async def _infer(house: House, model: Served, request: Request) -> Response:
    encoding = encoding_of(request.headers.get("content-encoding"))
    length = request.headers.get(_JSON_LENGTH)
    with model.batcher.ticket() as ticket, house.memory.holding() as holding:
        cap = _cap(house, model)
        body = await house.body(request, holding, cap, ticket.nearly)
        asked = await _understood(house, model, body, length, encoding, cap, holding)
        ticket.place()

        async def work() -> Response:
            try:
                answer = await ticket.run(asked.batch)
            except GddctlError as error:
                raise model.failed(error) from error
            if asked.binary:
                content, head = render_answer(answer, asked, model.name, VERSION, model.output)
            else:
                holding.take(_WRITTEN * answer.size)
                content, head = await house.in_pool(lambda: render_answer(answer, asked, model.name, VERSION, model.output))
            return await _packed(house, content, head, request.headers.get("accept-encoding"))

        return await house.answer(request.receive, work(), asked.timeout_s)


def _cap(house: House, model: Served) -> Cap:
    """No body is longer than the largest batch in JSON: what is would only be parsed to be refused."""
    most, general = longest_body(model.input, model.max_batch), any_body(house.limits)
    if most >= general.bytes:
        return general
    return Cap(most, f"the request is larger than {most} bytes, which {model.max_batch} images take at most; indent no JSON")


async def _understood(
    house: House, model: Served, body: bytes, length: str | None, encoding: str | None, cap: Cap, holding: Holding
) -> InferRequest:
    def understand() -> InferRequest:
        plain = body if encoding is None else decompress(body, encoding, cap, holding)
        return parse_request(plain, length, model.input, model.output, model.max_batch, holding.take)

    return understand() if encoding is None and json_end(body, length) <= _LOOP_BYTES else await house.in_pool(understand)


async def _packed(house: House, content: bytes, head: int | None, accept: str | None) -> Response:
    """The answer; compressed only when the client names one encoding and no other, as tritonclient does when told to.

    Most HTTP libraries offer a list with every request. Compressing for them costs more than loopback or a local network gives back.
    """
    headers = {} if head is None else {"Inference-Header-Content-Length": str(head)}
    kind = "application/json" if head is None else "application/octet-stream"
    wanted = (accept or "").strip().lower()
    if wanted in ("gzip", "deflate"):
        window = zlib.MAX_WBITS + (16 if wanted == "gzip" else 0)
        content = await house.in_pool(lambda: _compress(content, window))
        headers["Content-Encoding"] = wanted
    return Response(content, media_type=kind, headers=headers)


def _compress(content: bytes, window: int) -> bytes:
    machine = zlib.compressobj(1, zlib.DEFLATED, window)
    return machine.compress(content) + machine.flush()


def _config(house: House, model: Served) -> dict[str, Any]:
    info = model.info
    parameters = {
        "sha256": model.sha256 or "",
        "file": model.file_state(),
        "graph": info.graph,
        "precision": info.precision,
        "target": info.target,
        "weights_sha256": info.weights_sha256,
        "classes": ",".join(info.classes.names),
        "palette": ";".join(",".join(map(str, color)) for color in info.classes.palette),
    }
    return {
        "name": model.name,
        "platform": model.platform,
        "max_batch_size": model.max_batch,
        "input": [{"name": model.input.name, "data_type": model.input.triton_type, "dims": list(model.input.item_shape)}],
        "output": [{"name": model.output.name, "data_type": model.output.triton_type, "dims": list(model.output.item_shape)}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(house.limits.batch_delay_s * 1e6)},
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }


def _stats(model: Served) -> dict[str, Any]:
    counts = model.counts
    nothing = {"count": 0, "ns": 0}
    return {
        "name": model.name,
        "version": VERSION,
        "last_inference": counts.last_ms,
        "inference_count": counts.images,
        "execution_count": counts.runs,
        "inference_stats": {
            "success": {"count": counts.requests, "ns": counts.queue_ns + counts.infer_ns},
            "fail": {"count": counts.failures, "ns": 0},
            "queue": {"count": counts.requests, "ns": counts.queue_ns},
            "compute_input": nothing,
            "compute_infer": {"count": counts.runs, "ns": counts.infer_ns},
            "compute_output": nothing,
        },
        "batch_stats": [
            {"batch_size": size, "compute_input": nothing, "compute_infer": {"count": runs, "ns": total}, "compute_output": nothing}
            for size, (runs, total) in sorted(counts.by_batch.items())
        ],
    }
