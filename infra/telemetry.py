"""Every metric of Weir, by name, in one place (Prometheus; exposed at /metrics of the API).

Names end in their unit. Labels have few values: routes as declared, never paths; no tenants, no
ids. A process has its own registry of them; `/metrics` of a process shows what that process knows.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# From a cached read to a command that waits for its time-out.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

LOOP_DELAY = Gauge(
    "weir_event_loop_delay_seconds",
    "How late the event loop came to a task that was due: the longest of the last ten seconds.",
    registry=REGISTRY,
)
LIVE_LISTENERS = Gauge("weir_live_listeners", "Open event streams.", registry=REGISTRY)
DEPENDENCY_UP = Gauge(
    "weir_dependency_up",
    "1 when the server behind us answered the last time it was asked.",
    ("dependency",),
    registry=REGISTRY,
)
LOOP_LAG = Gauge(
    "weir_loop_lag_records",
    "Records that a loop has still to read, all partitions together.",
    ("loop",),
    registry=REGISTRY,
)

LOST_ANSWERS = Gauge(
    "weir_lost_answers",
    "Reports of the last minute that were not answered, here or elsewhere, as this process knows.",
    registry=REGISTRY,
)

WEBHOOKS = Gauge(
    "weir_webhooks",
    "Webhooks that wait to be delivered, and dead ones that can be redriven.",
    ("status",),
    registry=REGISTRY,
)
WEBHOOK_OLDEST = Gauge(
    "weir_webhook_oldest_waiting_seconds",
    "How long the oldest webhook that waits has been waiting.",
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Gauge(
    "weir_webhook_attempts_recent",
    "Attempts to deliver a webhook in the last five minutes, by what they came to.",
    ("outcome",),
    registry=REGISTRY,
)
WEBHOOK_SECONDS = Gauge(
    "weir_webhook_attempt_recent_seconds",
    "How long the receivers of webhooks took in the last five minutes (quantile 0.5, 0.99).",
    ("quantile",),
    registry=REGISTRY,
)


class _Timings:
    """How long requests of one route took: per bucket, and in all."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.total = 0.0


class HttpRequests(Collector):
    """Requests answered, by route: counted in plain integers, since each request pays for it.

    weir_http_requests_total{method,route,status}: status 499 when the client left before.
    weir_http_request_duration_seconds{method,route}: from the request to the last byte of its
    answer (streams: their whole life). On one event loop only.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}
        self._timings: dict[tuple[str, str], _Timings] = {}

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (method, route, status)
        counts = self._counts
        counts[key] = counts.get(key, 0) + 1
        timings = self._timings.get((method, route))
        if timings is None:
            timings = self._timings[method, route] = _Timings()
        timings.buckets[bisect_left(_SECONDS, seconds)] += 1
        timings.total += seconds

    def count(self, method: str, route: str, status: int) -> int:
        """How many there were."""
        return self._counts.get((method, route, status), 0)

    def collect(self) -> Iterable[Metric]:
        """What Prometheus asks."""
        requests = CounterMetricFamily(
            "weir_http_requests",
            "Requests answered. status 499: the client left before.",
            labels=("method", "route", "status"),
        )
        for (method, route, status), count in self._counts.items():
            requests.add_metric((method, route, str(status)), count)
        durations = HistogramMetricFamily(
            "weir_http_request_duration_seconds",
            "From the request to the last byte of its answer (streams: their whole life).",
            labels=("method", "route"),
        )
        bounds = [*(str(seconds) for seconds in _SECONDS), "+Inf"]
        for labels, timings in self._timings.items():
            sums = list(zip(bounds, accumulate(timings.buckets), strict=True))
            durations.add_metric(labels, sums, timings.total)
        return [requests, durations]


HTTP_REQUESTS = HttpRequests()
REGISTRY.register(HTTP_REQUESTS)


def exposition() -> bytes:
    """The metrics of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
