"""The order of turns, their prompts, and how a gateway's streams are spread."""

from tests.bench.gateway.levels import level
from tests.bench.gateway.reader import Counted
from tests.bench.gateway.readers import shares, together
from tests.bench.outcomes import Result
from tests.bench.process_tree import Memory
from tests.bench.scenarios import STARTER_BYTES, scale_of, scenarios_at
from tests.bench.turns import costs, order
from tests.bench.words import Words

SCENARIOS = scenarios_at(scale_of(STARTER_BYTES))


def test_every_round_begins_with_another_server() -> None:
    places = [(p.round, p.server) for p in order("135m", 3, [SCENARIOS["streams-1"]], ["a", "b"])]
    assert places == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_servers_take_turns_within_a_scenario() -> None:
    places = order("135m", 1, [SCENARIOS["streams-1"], SCENARIOS["chat"]], ["a", "b"])
    named = [(p.scenario.name, p.server) for p in places]
    assert named == [("streams-1", "a"), ("streams-1", "b"), ("chat", "a"), ("chat", "b")]


def test_prompts_are_the_same_for_every_server_and_new_in_every_round() -> None:
    assert Words("chat", 1, 0).draw(20) == Words("chat", 1, 0).draw(20)
    assert len({Words("chat", number, 0).draw(20) for number in range(10)}) == 10


def test_processor_time_is_per_thousand_tokens() -> None:
    figures = costs(Result({}, tokens=500), cpu=2.0, memory=Memory(resident=10))
    assert figures == {"peak_rss": 10, "cpu_per_1000_tokens": 4.0}  # no proportional size: not known here
    assert costs(Result({}), cpu=2.0, memory=Memory(resident=10)) == {}


def test_streams_are_spread_evenly_and_no_reader_is_idle() -> None:
    assert shares(1, 2) == [1]
    assert shares(9, 2) == [5, 4]


def test_a_level_is_what_all_readers_counted() -> None:
    counted = together([Counted(1.0, 4.0, 50, 1), Counted(2.0, 6.0, 30, 1)])
    measured = level(2, 100, counted, gateway_cpu=2.0, worker_cpu=1.0)
    assert measured.tokens_per_second == 40
    assert measured.tokens_per_core_second == 100
    assert measured.microseconds_per_token == 10_000
    assert measured.microseconds_per_event == 25_000
