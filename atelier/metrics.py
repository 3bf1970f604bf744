"""The gateway's metrics. Labels are bounded (routes, states, keys of existing models), never text of a client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
LOAD = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class GatewayMetrics:
    """The metrics of one gateway, in one CollectorRegistry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "atelier_requests_total", "HTTP requests answered.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "atelier_request_seconds",
            "From a request's head to the last byte of its answer.",
            ["route"],
            buckets=LATENCY,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "atelier_time_to_first_token_seconds",
            "From a request's head to the first text of its completion.",
            ["model"],
            buckets=LATENCY,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "atelier_prompt_tokens_total", "Tokens of accepted prompts.", ["model"], registry=registry
        )
        self.cached_tokens = Counter(
            "atelier_cached_prompt_tokens_total",
            "Those of the prompts' tokens that the KV cache had.",
            ["model"],
            registry=registry,
        )
        self.completion_tokens = Counter(
            "atelier_completion_tokens_total", "Tokens generated.", ["model"], registry=registry
        )
        self.draft_tokens = Counter(
            "atelier_draft_tokens_total", "Tokens guessed ahead by speculation.", ["model"], registry=registry
        )
        self.accepted_draft_tokens = Counter(
            "atelier_accepted_draft_tokens_total",
            "Those of them that the model would have generated.",
            ["model"],
            registry=registry,
        )
        self.retries = Counter(
            "atelier_request_retries_total", "Requests begun again because their worker was lost.", registry=registry
        )
        self.loads = Counter(
            "atelier_loads_total", "Waits for a model to be loaded, by outcome.", ["outcome"], registry=registry
        )
        self.load_seconds = Histogram(
            "atelier_load_wait_seconds",
            "How long requests waited for a model to be loaded.",
            buckets=LOAD,
            registry=registry,
        )
        self.tool_calls = Counter(
            "atelier_mcp_tool_calls_total",
            "Calls of MCP servers' tools: ok, error (the tool says so), failed (the server gave no result).",
            ["outcome"],
            registry=registry,
        )
        self.tool_call_seconds = Histogram(
            "atelier_mcp_tool_call_seconds",
            "How long calls of MCP servers' tools took.",
            buckets=LATENCY,
            registry=registry,
        )
        self.active = Gauge("atelier_requests_active", "Requests that a worker has accepted.", registry=registry)
        self.waiting = Gauge(
            "atelier_requests_waiting", "Requests that wait for a load or for a worker.", registry=registry
        )
        self.models = Gauge("atelier_models", "Models that can be loaded.", registry=registry)
        self.instances = Gauge("atelier_instances", "Instances, by state.", ["state"], registry=registry)
        self.registry_connected = Gauge(
            "atelier_registry_connected", "1 while the registry is connected.", registry=registry
        )

    def count_request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def count_generation(
        self,
        *,
        model: str,
        prompt_tokens: int,
        cached_tokens: int,
        completion_tokens: int,
        draft_tokens: int,
        accepted_draft_tokens: int,
        first_text_seconds: float | None,
        begun_again: bool,
    ) -> None:
        """Count a generation that has ended, successfully or not."""
        self.prompt_tokens.labels(model).inc(prompt_tokens)
        self.cached_tokens.labels(model).inc(cached_tokens)
        self.completion_tokens.labels(model).inc(completion_tokens)
        self.draft_tokens.labels(model).inc(draft_tokens)
        self.accepted_draft_tokens.labels(model).inc(accepted_draft_tokens)
        self.retries.inc(begun_again)
        if first_text_seconds is not None:
            self.time_to_first_token.labels(model).observe(first_text_seconds)

    def count_reading(self, *, model: str, prompt_tokens: int, begun_again: bool) -> None:
        """Count a call that only read texts, such as embeddings, successful or not."""
        self.prompt_tokens.labels(model).inc(prompt_tokens)
        self.retries.inc(begun_again)

    def count_tool_call(self, outcome: str, seconds: float) -> None:
        self.tool_calls.labels(outcome).inc()
        self.tool_call_seconds.observe(seconds)

    @contextmanager
    def load_wait(self) -> Iterator[None]:
        """Measures the block, in which a request waits for a model to load."""
        with self.load_seconds.time():
            try:
                yield
            except BaseException:
                self.loads.labels("failed").inc()
                raise
            self.loads.labels("ready").inc()

    def watch_requests(self, active: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Read the numbers of active and waiting requests from these functions whenever metrics are collected."""
        self.active.set_function(active)
        self.waiting.set_function(waiting)

    def set_inventory(self, models: int, instances: dict[str, int]) -> None:
        """Set the number of models, and of instances in every possible state."""
        self.models.set(models)
        for state, count in instances.items():
            self.instances.labels(state).set(count)
