"""The metrics as an object: what GET /metrics tells, without the histograms' buckets."""

from prometheus_client import CollectorRegistry

from atelier.json_types import Json

LEFT_OUT = ("_bucket", "_created")


def figures(registry: CollectorRegistry) -> Json:
    """By the name of the series, each value with its labels. They are this gateway's own, since it started."""
    told: dict[str, list[Json]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith(LEFT_OUT):
                told.setdefault(sample.name, []).append({"labels": sample.labels, "value": sample.value})
    return {"series": told}
