"""Every metric of Weir, by name, in one place (Prometheus; exposed at /metrics of the API).

Names end in their unit. Labels have few values: routes as declared, never paths; no tenants, no
ids. A process has its own registry of them; `/metrics` of a process shows what that process knows.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
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

HTTP_REQUESTS = Counter(
    "weir_http_requests_total",
    "Requests answered. status 499: the client left before.",
    ("method", "route", "status"),
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "weir_http_request_duration_seconds",
    "From the request's first byte to the last of its answer (streams: their whole life).",
    ("method", "route"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
HTTP_IN_FLIGHT = Gauge(
    "weir_http_requests_in_flight", "Requests being handled, open streams too.", registry=REGISTRY
)
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


class Sampled(Collector):
    """A gauge whose values are asked for when metrics are read. read() -> label value -> number."""

    def __init__(
        self, name: str, about: str, label: str, read: Callable[[], Iterable[tuple[str, float]]]
    ) -> None:
        self._name, self._about, self._label, self._read = name, about, label, read

    def collect(self) -> Iterable[Metric]:
        """What Prometheus asks."""
        family = GaugeMetricFamily(self._name, self._about, labels=[self._label])
        for value, number in self._read():
            family.add_metric([value], number)
        return [family]


def exposition() -> bytes:
    """The metrics of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
