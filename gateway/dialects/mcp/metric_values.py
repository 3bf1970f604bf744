"""The metrics as an object: what GET /metrics tells, without the histograms' buckets."""

from typing import Any

from prometheus_client import CollectorRegistry

LEFT_OUT = ("_bucket", "_created")

Json = dict[str, Any]


def figures(registry: CollectorRegistry) -> Json:
    """By the name of the series, each value with its labels. They are this gateway's own, since it started."""
    told: dict[str, list[Json]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith(LEFT_OUT):
                told.setdefault(sample.name, []).append({"labels": sample.labels, "value": sample.value})
    return {"series": told}
