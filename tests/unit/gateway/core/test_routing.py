"""Decisions about where a request goes, without a wire."""

from typing import Any

import pytest

from atelier.errors import InvalidRequest, ModelNotFound, Unavailable, WorkerLost
from atelier.names import InstanceName, ModelName
from gateway.core.routing import (
    ChosenInstance,
    Circumstances,
    Decision,
    Demand,
    LoadModel,
    Reject,
    Serve,
    WaitForLoad,
    decide,
)
from gateway.fleet.snapshot import Instance, InstanceState, Model, Snapshot

KEY = "acme/tiny"


def instance(id: str = KEY, state: InstanceState = InstanceState.READY, **facts: Any) -> Instance:
    given = {"address": f"unix:/{id}", "token": id, "parallel": 4, "model_key": KEY}
    return Instance(id=id, state=state, **{**given, **facts})


def decision(*instances: Instance, target: ModelName | InstanceName | None = None, **now: Any) -> Decision:
    snapshot = Snapshot({KEY: Model(key=KEY)}, {each.id: each for each in instances})
    return decide(target or ModelName(KEY), snapshot, Circumstances(**{"in_flight": {}, **now}))


def served(found: Decision) -> str:
    assert isinstance(found, Serve)
    return found.instance.id


def test_a_ready_instance_serves() -> None:
    assert served(decision(instance())) == KEY


def test_the_least_busy_instance_serves() -> None:
    assert served(decision(instance(), instance(f"{KEY}:2"), in_flight={KEY: 1})) == f"{KEY}:2"


def test_load_is_measured_relative_to_the_number_of_sequences() -> None:
    big = instance(f"{KEY}:2", parallel=16)
    assert served(decision(instance(), big, in_flight={KEY: 2, big.id: 4})) == big.id


def test_other_gateways_calls_count_by_what_the_instance_reports() -> None:
    assert served(decision(instance(active=3, queued=1), instance(f"{KEY}:2"), in_flight={f"{KEY}:2": 2})) == f"{KEY}:2"


def test_equally_busy_instances_take_turns() -> None:
    pair = instance(), instance(f"{KEY}:2")
    assert [served(decision(*pair, turn=turn)) for turn in range(4)] == [KEY, f"{KEY}:2", KEY, f"{KEY}:2"]


def test_an_instance_with_a_chosen_identifier_serves_its_model_too() -> None:
    assert served(decision(instance("fast"))) == "fast"


def test_a_named_instance_is_the_only_one_to_serve() -> None:
    found = decision(instance(), instance(f"{KEY}:2"), target=InstanceName(f"{KEY}:2"), in_flight={f"{KEY}:2": 9})
    assert served(found) == f"{KEY}:2"


def test_a_named_draft_model_selects_the_instance_that_has_it() -> None:
    pair = instance(), instance(f"{KEY}:2", load={"draft_model": "acme/small@q4"})
    for name in ("acme/small@q4", "small", "Acme/Small"):
        assert served(decision(*pair, draft_model=name, in_flight={f"{KEY}:2": 3})) == f"{KEY}:2"
    assert served(decision(pair[1])) == f"{KEY}:2"


@pytest.mark.parametrize("load", [None, {}, {"draft_model": "acme/other"}])
def test_an_unloaded_draft_model_is_rejected_with_instructions_to_load_it(
    load: dict[str, str] | None,
) -> None:
    loaded = [] if load is None else [instance(load=load)]
    for target in (ModelName(KEY), InstanceName(KEY)):
        for name in ("small", ""):
            found = decision(*loaded, target=target, draft_model=name)
            assert isinstance(found, Reject)
            assert isinstance(found.error, InvalidRequest)
            assert found.error.param == "draft_model"
            assert "--draft-model" in found.error.message


def test_an_instance_with_the_draft_model_is_waited_for() -> None:
    coming = instance(f"{KEY}:2", InstanceState.LOADING, load={"draft_model": "acme/small"})
    assert decision(instance(), coming, draft_model="small") == WaitForLoad(KEY)


def test_a_loading_instance_is_waited_for_even_without_loading_on_demand() -> None:
    for state in (InstanceState.STARTING, InstanceState.LOADING, InstanceState.RESTARTING, InstanceState.STALLED):
        assert decision(instance(state=state), load_on_demand=False) == WaitForLoad(KEY)


def test_a_model_without_instances_is_loaded() -> None:
    assert decision() == LoadModel(KEY)
    assert decision(instance(state=InstanceState.STOPPING)) == LoadModel(KEY)


def test_a_failed_instance_is_loaded_again() -> None:
    assert decision(instance(state=InstanceState.FAILED)) == LoadModel(KEY)
    named = decision(instance("fast", InstanceState.FAILED), target=InstanceName("fast"), load_on_demand=False)
    assert named == LoadModel("fast")


def test_without_loading_on_demand_an_unloaded_model_is_rejected_with_instructions_to_load_it() -> None:
    found = decision(load_on_demand=False)
    assert isinstance(found, Reject)
    assert isinstance(found.error, ModelNotFound)
    assert "atelier load acme/tiny" in found.error.message


def test_without_a_registry_loaded_models_serve_and_others_are_unavailable() -> None:
    assert served(decision(instance(), registry_connected=False)) == KEY
    found = decision(registry_connected=False)
    assert isinstance(found, Reject)
    assert type(found.error) is Unavailable


def test_a_lost_process_is_skipped_although_it_is_listed_as_ready() -> None:
    lost = instance()
    assert decision(lost, lost=[lost.launch]) == WaitForLoad(KEY)
    assert served(decision(lost, instance(f"{KEY}:2"), lost=[lost.launch])) == f"{KEY}:2"
    assert served(decision(instance(token="next"), lost=[lost.launch])) == KEY


class ScriptedDispatcher:
    """Finds these instances one after the other, each with whether its load was waited for."""

    def __init__(self, *found: tuple[Instance, bool]) -> None:
        self._found = iter(found)

    async def find(self, demand: Demand, lost: Any = ()) -> tuple[Instance, bool]:
        return next(self._found)


@pytest.mark.parametrize("waited", [False, True])
async def test_the_wait_for_a_lost_workers_replacement_is_not_reported_as_a_load(waited: bool) -> None:
    lost, replacement = instance(), instance(token="next")
    dispatcher: Any = ScriptedDispatcher((lost, waited), (replacement, True))
    placement = ChosenInstance(dispatcher, Demand(ModelName(KEY), "r"))

    async def work(on: Instance) -> Instance:
        if on is lost:
            raise WorkerLost
        return on

    assert await placement.run(work) is replacement
    assert (placement.replaced, placement.had_to_load) == (True, waited)
