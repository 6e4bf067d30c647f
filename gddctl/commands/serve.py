"""``gddctl serve``: models behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import RunDevice, RunDeviceName
from gddctl.commands.output import Json, Output, Quiet, Verbose

MIB = 1 << 20


def serve(
    artifacts: Annotated[list[Path], typer.Argument(help="Exported files (.onnx, .engine), or bundles, which need torch.")],
    name: Annotated[list[str] | None, typer.Option("--name", help="A model's name, one per artifact; default: the file's stem.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one and prints it.")] = 8000,
    device: RunDevice = RunDeviceName.cpu,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the CPU, for each model; default: every core.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Ask for the bearer token in this file; or set GDDCTL_TOKEN.")
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, max=256, help="Images run together; 1: one request at a time.")] = 8,
    batch_delay_ms: Annotated[
        float, typer.Option("--batch-delay-ms", min=0, max=1000, help="A batch waits this long at most for requests on their way.")
    ] = 2.0,
    queue: Annotated[int, typer.Option("--queue", min=1, max=65536, help="Requests per model that may wait; more are a 503.")] = 256,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="From a request to its answer.")] = 30.0,
    read_seconds: Annotated[
        float, typer.Option("--read-seconds", min=0.1, metavar="SECONDS", help="For a header; and longest that a body may stand still.")
    ] = 10.0,
    drain_seconds: Annotated[
        float, typer.Option("--drain-seconds", min=0, metavar="SECONDS", help="For what is in flight when told to end.")
    ] = 20.0,
    max_body_mb: Annotated[int, typer.Option("--max-body-mb", min=1, metavar="MIB", help="Largest request body.")] = 64,
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=1, help="Width times height of an image.")] = 40_000_000,
    max_memory_mb: Annotated[
        int, typer.Option("--max-memory-mb", min=1, metavar="MIB", help="Bodies and images of all requests together.")
    ] = 1024,
    max_connections: Annotated[int, typer.Option("--max-connections", min=1, help="Open at once.")] = 512,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Serve models over HTTP: the Open Inference Protocol, /predict for images, a page at /, /metrics."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.lazy import require

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, extra="serve", why="serving")
    from gddctl.serve.http.auth import read_token
    from gddctl.serve.http.lifecycle import Plan
    from gddctl.serve.http.lifecycle import serve as serve_models
    from gddctl.serve.http.limits import Limits
    from gddctl.serve.http.names import model_names

    names = model_names(artifacts, name or [])
    token = read_token(token_file)
    limits = Limits(
        queue=queue,
        max_batch=max_batch,
        batch_delay_s=batch_delay_ms / 1000,
        body_bytes=max_body_mb * MIB,
        pixels=max_pixels,
        timeout_s=timeout,
        read_s=read_seconds,
        connections=max_connections,
        memory_bytes=max_memory_mb * MIB,
        drain_s=drain_seconds,
    )

    def listening(address: str, chosen: int) -> None:
        url = f"http://[{address}]:{chosen}" if ":" in address else f"http://{address}:{chosen}"
        output.say(f"listening on {url}  ({', '.join(names)})")
        if json:
            output.emit({"url": url, "host": address, "port": chosen, "pid": os.getpid(), "models": names})

    plan = Plan(list(zip(names, artifacts, strict=True)), host, port, device.literal, threads, token, limits)
    serve_models(plan, listening)
