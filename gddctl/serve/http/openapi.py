"""The parts of the OpenAPI schema that FastAPI cannot read off the routes: bodies that we parse ourselves, and errors."""

from __future__ import annotations

from typing import Any

_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_WORDS = {
    400: "The request is wrong; the error says how.",
    401: "A bearer token is needed.",
    403: "A browser asks for a page of somebody else's.",
    404: "No such model or version.",
    408: "The body came too slowly.",
    413: "The body or the image is too large.",
    415: "A form of body that is not understood here.",
    422: "A parameter of the query is wrong.",
    503: "Not now: loading, full, closing, or out of time. Retry-After says when to ask again.",
}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that a route can give; every route can ask for a token, refuse other pages, and refuse while the server closes."""
    every = sorted({*codes, 401, 403, 422, 503})
    return {code: {"description": _WORDS[code], "content": {"application/json": {"schema": _ERROR}}} for code in every}


def _tensor(extra: dict[str, Any], required: list[str]) -> dict[str, Any]:
    properties = {"name": {"type": "string"}, "parameters": _PARAMETERS, **extra}
    return {"type": "object", "properties": properties, "required": required}


_INPUT = _tensor(
    {
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string", "enum": ["UINT8", "FP32"]},
        "data": {"type": "array", "items": {}, "description": "Numbers, flat or nested, row-major; left out with binary_data_size."},
    },
    ["name", "shape", "datatype"],
)
_INFER = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "items": _INPUT},
        "outputs": {"type": "array", "items": _tensor({}, ["name"])},
    },
    "required": ["inputs"],
}
INFER_BODY = {
    "requestBody": {
        "required": True,
        "description": "JSON; with the header Inference-Header-Content-Length, that many bytes of JSON and then the binary tensors.",
        "content": {
            "application/json": {"schema": _INFER},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
INDEX_BODY = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}},
    }
}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "An encoded image as the body, or a form with one file.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}, "required": ["image"]}
            },
        },
    }
}
