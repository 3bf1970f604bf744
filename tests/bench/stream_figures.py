"""The figures of a set of streams. Pure."""

from collections.abc import Sequence

from tests.bench.percentiles import gaps, median, percentile
from tests.bench.trace import Trace


def stream_figures(traces: Sequence[Trace]) -> dict[str, float]:
    """Times in seconds; from the first request sent to the last token come."""
    firsts = [trace.time_to_first_token for trace in traces]
    between = [gap for trace in traces for gap in gaps(trace.arrivals)]
    whole = [trace.last - trace.sent for trace in traces]
    return {
        "tokens_per_second": tokens_per_second(traces),
        "ttft_median": median(firsts),
        "ttft_p99": percentile(firsts, 0.99),
        "itl_median": median(between),
        "itl_p99": percentile(between, 0.99),
        "longest_gap": percentile(between, 1),
        "slowest_over_fastest": max(whole) / min(whole),
        "prompt_tokens": median([trace.prompt_tokens for trace in traces]),
    }


def tokens_per_second(traces: Sequence[Trace]) -> float:
    seconds = max(trace.last for trace in traces) - min(trace.sent for trace in traces)
    return sum(trace.tokens for trace in traces) / seconds
