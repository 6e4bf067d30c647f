"""The HTTP surface fuzzed from its own OpenAPI schema: whatever is sent, no 500 and no end of the server."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from tests.serve.http.conftest import DEPLOY, Known, Server, binary_request

EXAMPLES = 12  # per route and method
GROWTH_MIB = 60  # allocators; see test_predict


def test_the_schema_names_every_route(server: Server) -> None:
    schema = server.get("/openapi.json").json
    assert {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{model}",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
        "/v2/repository/index",
        "/predict",
        "/predict/{model}",
        "/metrics",
    } <= set(schema["paths"])
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/octet-stream"} <= set(body)


def test_whatever_the_schema_allows_or_forbids_is_answered(server: Server, known: Known) -> None:
    schema = schemathesis.openapi.from_url(f"http://{server.address}/openapi.json")
    before, statuses = server.resident_mib(), set[int]()
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) > 15
    turn = itertools.count()
    settings = hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
    )
    for operation in operations:
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except Exception:  # a route without parameters has nothing that could be wrong
                continue

            @settings
            @hypothesis.given(case=strategy)
            def ask(case: Any) -> None:
                if "model" in (case.path_parameters or {}) and next(turn) % 2:
                    case.path_parameters["model"] = DEPLOY  # else hardly any request would reach a model
                response = case.call()
                statuses.add(response.status_code)
                case.validate_response(response, checks=[not_a_server_error] if response.status_code != 503 else [])

            try:
                ask()
            except hypothesis.errors.Unsatisfiable:
                continue
    assert 500 not in statuses and {200, 400, 404} <= statuses, statuses
    assert server.process.poll() is None and server.resident_mib() - before < GROWTH_MIB
    body, headers = binary_request(known.images[:1])
    assert server.ask("POST", f"/v2/models/{DEPLOY}/infer", body, headers).body.endswith(known.masks[:1].tobytes())


def test_the_fuzzer_sees_a_500() -> None:
    app = FastAPI()

    @app.get("/broken")
    async def broken() -> Response:
        return Response(status_code=500)

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operation = schema["/broken"]["GET"]
    with pytest.raises(FailureGroup, match="distinct failure"):
        operation.Case().call_and_validate(checks=[not_a_server_error])
