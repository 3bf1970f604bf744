from pathlib import Path

from prometheus_client import CollectorRegistry

from atelier.metrics import GatewayMetrics

OPERATIONS = Path(__file__).parents[3] / "docs/operations.md"


def test_every_metric_is_documented() -> None:
    documented = OPERATIONS.read_text()
    metrics = GatewayMetrics(CollectorRegistry())
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in documented
