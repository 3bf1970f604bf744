"""How long an answer took, for the header that browsers' tools and tracing read. Pure.

https://www.w3.org/TR/server-timing/
"""

from collections.abc import Collection, Mapping

from gateway.core.events import Finished

TIMING_HEADER = "server-timing"


def server_timing(accept_seconds: float, ends: Collection[Finished] = ()) -> str:
    """`accept_seconds`: until a worker had accepted it, a load included. `ends`: of every choice that has ended.

    Of several choices, which run side by side or one after the other, each figure is the longest.
    """
    spans = {"accept": accept_seconds}
    if ends:
        figures = [end.statistics for end in ends]
        spans["queue"] = max(each.queue_seconds for each in figures)
        spans["prefill"] = max(each.time_to_first_token_seconds - each.queue_seconds for each in figures)
        spans["decode"] = max(each.generation_seconds for each in figures)
    return written(spans)


def written(spans: Mapping[str, float]) -> str:
    """In milliseconds, none below zero: clocks are read one after the other."""
    return ", ".join(f"{name};dur={max(0.0, seconds) * 1000:.1f}" for name, seconds in spans.items())
