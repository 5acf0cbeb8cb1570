"""How a number is told to Prometheus: families of metrics, all of whose names begin with ``snapring_``."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from cluster.distribution import Distribution

Families = Iterator[Metric]

_PREFIX: Final = "snapring_"


def counter(name: str, what: str, count: float) -> Metric:
    """What only grows, until the process ends. ``_total`` is added to the name."""
    return CounterMetricFamily(_PREFIX + name, what, value=count)


def counters(name: str, what: str, label: str, counts: Mapping[str, float]) -> Metric:
    """The same by ``label``, whose values are those of ``counts``."""
    family = CounterMetricFamily(_PREFIX + name, what, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def gauge(name: str, what: str, value: float) -> Metric:
    """What is so now."""
    return GaugeMetricFamily(_PREFIX + name, what, value=value)


def gauges(name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
    """The same by ``label``, whose values are those of ``values``."""
    family = GaugeMetricFamily(_PREFIX + name, what, labels=(label,))
    for labelled, value in values.items():
        family.add_metric((labelled,), value)
    return family


def histogram(name: str, what: str, spread: Distribution) -> Metric:
    """How a quantity is spread."""
    return HistogramMetricFamily(_PREFIX + name, what, buckets=_buckets(spread), sum_value=spread.total)


def histograms(name: str, what: str, label: str, spreads: Mapping[str, Distribution]) -> Metric:
    """The same by ``label``, whose values are those of ``spreads``."""
    family = HistogramMetricFamily(_PREFIX + name, what, labels=(label,))
    for value, spread in spreads.items():
        family.add_metric((value,), _buckets(spread), spread.total)
    return family


def one_of(name: str, what: str, states: tuple[str, ...], state: str) -> Metric:
    """Which of ``states`` it is: 1 for that, 0 for the others."""
    return gauges(name, what, "state", {each: float(each == state) for each in states})


def _buckets(spread: Distribution) -> list[tuple[str, float]]:
    return [("+Inf" if bound == inf else str(float(bound)), count) for bound, count in spread.cumulative()]
