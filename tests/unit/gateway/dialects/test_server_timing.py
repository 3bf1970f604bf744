from atelier.generation_types import Finished, Statistics, StopReason
from gateway.dialects.reply import server_timing


def end(queue: float, first: float, generation: float) -> Finished:
    figures = Statistics(
        queue_seconds=queue, time_to_first_token_seconds=first, generation_seconds=generation, predicted_tokens=3
    )
    return Finished(0, StopReason.EOS_FOUND, None, figures)


def test_only_the_time_to_acceptance_is_known_at_first() -> None:
    assert server_timing(0.01234) == "accept;dur=12.3"


def test_the_longest_times_of_several_choices_are_reported() -> None:
    header = server_timing(0.5, [end(0.1, 0.3, 2.0), end(0.2, 0.25, 1.0)])
    assert header == "accept;dur=500.0, queue;dur=200.0, prefill;dur=200.0, decode;dur=2000.0"


def test_no_time_is_negative() -> None:
    header = server_timing(0, [end(0.2, 0.1, 0)])
    assert header == "accept;dur=0.0, queue;dur=200.0, prefill;dur=0.0, decode;dur=0.0"
