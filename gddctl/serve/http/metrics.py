"""What Prometheus reads at /metrics: requests, latency, the queue, batches, inference, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from gddctl.serve.http.batcher import Ran

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server, in a registry of their own. Route labels are templates, so that no client can make new ones."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, which nobody reads
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counter("gddctl_requests", "Requests answered.", ["route", "code"], registry=registry)
        self._latency = Histogram(
            "gddctl_request_seconds", "From a request's header to its answer's end.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._rejected = Counter("gddctl_rejected", "Requests turned down.", ["reason"], registry=registry)
        self._depth = Gauge("gddctl_queue_depth", "Requests that wait for their model.", ["model"], registry=registry)
        self._ready = Gauge("gddctl_model_ready", "1 once a model is loaded and warm.", ["model"], registry=registry)
        self._batches = Histogram("gddctl_batch_size", "Images in one run.", ["model"], buckets=_SIZES, registry=registry)
        self._inference = Histogram("gddctl_inference_seconds", "One run of a model.", ["model"], buckets=_SECONDS, registry=registry)
        self._waited = Histogram("gddctl_queue_seconds", "From the line's end to its head.", ["model"], buckets=_SECONDS, registry=registry)
        self._failed = Counter("gddctl_inference_failures", "Runs that the runtime gave up.", ["model"], registry=registry)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A gauge whose value is looked up when it is read."""
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def add_model(self, name: str, depth: Callable[[], float], ready: Callable[[], float]) -> None:
        """A model's own gauges."""
        self._depth.labels(name).set_function(depth)
        self._ready.labels(name).set_function(ready)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(route, str(code)).inc()
        self._latency.labels(route).observe(seconds)

    def rejected(self, reason: str) -> None:
        """A request was turned down."""
        self._rejected.labels(reason).inc()

    def ran(self, model: str, ran: Ran) -> None:
        """A model ran."""
        if ran.failed:
            self._failed.labels(model).inc()
            return
        self._batches.labels(model).observe(ran.images)
        self._inference.labels(model).observe(ran.seconds)
        waited = self._waited.labels(model)
        for seconds in ran.queued:
            waited.observe(seconds)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)
