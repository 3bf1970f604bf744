"""Requests' scales of an instance's adapters, and how the adapters are listed."""

import json
from typing import Any

import pytest

from atelier.errors import InvalidRequest
from atelier.lora_adapters import MOST_ADAPTERS, AdapterScale
from atelier.names import InstanceName, ModelName
from gateway.core.call import Call, Origin
from gateway.core.call_plan import make_plan
from gateway.core.routing import Circumstances, Serve, decide
from gateway.core.wire import submit_message
from gateway.dialects.body import parse
from gateway.dialects.lmstudio.lmstudio_model_list import load_settings
from gateway.dialects.lmstudio.lmstudio_requests import LoadBody, V0ChatBody
from gateway.dialects.lmstudio.lmstudio_v0 import openai_body
from gateway.dialects.native.model_replies import instance_object
from gateway.dialects.openai.openai_calls import chat_call, completion_call
from gateway.dialects.openai.openai_requests import ChatBody, CompletionBody
from gateway.fleet.snapshot import Instance, InstanceState, Model, Snapshot

KEY = "acme/tiny"
SCALES = [{"id": 1, "scale": 0.5}, {"name": "poet", "scale": -1}]
WANTED = [AdapterScale(1, 0.5), AdapterScale("poet", -1.0)]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": KEY, **fields}).encode()


def chat(lora: Any) -> Call:
    return chat_call(parse(body(messages=[{"role": "user", "content": "hi"}], lora=lora), ChatBody))


def test_every_dialect_accepts_scales_by_id_and_by_name() -> None:
    messages = [{"role": "user", "content": "hi"}]
    calls = [
        chat(SCALES),
        completion_call(parse(body(prompt="hi", lora=SCALES), CompletionBody)),
        chat_call(openai_body(parse(body(messages=messages, lora=SCALES, max_tokens=-1), V0ChatBody))),
    ]
    assert [call.lora for call in calls] == [WANTED] * 3


def test_scales_are_sent_to_the_worker_only_when_given() -> None:
    snapshot = Snapshot({KEY: Model(key=KEY)})
    plans = [make_plan(call, Origin("r", "k"), snapshot) for call in map(chat, (SCALES, []))]
    submits = [submit_message(plan, plan.call.prompts[0], plan.effective(None)) for plan in plans]
    assert [(each.id, each.name, each.scale) for each in submits[0].lora] == [(1, "", 0.5), (0, "poet", -1.0)]
    assert not submits[1].lora


@pytest.mark.parametrize(
    ("lora", "param"),
    [
        ([{"scale": 1.0}], "lora[0]"),
        ([SCALES[0], {"id": 0, "name": "poet", "scale": 1.0}], "lora[1]"),
        ([{"id": 0}], "lora[0].scale"),
        ([{"id": -1, "scale": 1.0}], "lora[0].id"),
        ([{"id": "0", "scale": 1.0}], "lora[0].id"),
        ([{"id": 0, "scale": 101}], "lora[0].scale"),
        ([{"id": 0, "scale": "1"}], "lora[0].scale"),
        ([SCALES[0]] * (MOST_ADAPTERS + 1), "lora"),
        ("poet", "lora"),
    ],
)
def test_an_invalid_scale_is_rejected_by_field_name(lora: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        chat(lora)
    assert refusal.value.param == param


def test_a_load_names_adapter_files_or_an_empty_list() -> None:
    assert load_settings(parse(body(lora=["poet.gguf=0.5"]), LoadBody)) == {"lora": ["poet.gguf=0.5"]}
    assert load_settings(parse(body(lora=[]), LoadBody)) == {"lora": []}
    with pytest.raises(InvalidRequest) as refusal:
        parse(body(lora=[""]), LoadBody)
    assert refusal.value.param == "lora[0]"


def test_an_instance_lists_its_adapters_by_the_names_that_requests_use() -> None:
    adapted = Instance(id=KEY, model_key=KEY, load={"lora": ["en/poet.gguf=0.5", "formal=clerk.gguf"]})
    assert instance_object(adapted)["adapters"] == [
        {"id": 0, "name": "poet", "scale": 0.5},
        {"id": 1, "name": "formal", "scale": 1.0},
    ]
    assert instance_object(Instance(id=KEY, model_key=KEY))["adapters"] == []


def instance(id: str, state: InstanceState = InstanceState.READY, **load: Any) -> Instance:
    return Instance(id=id, model_key=KEY, state=state, load=load, parallel=4)


def served(target: ModelName | InstanceName, *instances: Instance) -> set[str]:
    """The instances that answer, over all their turns."""
    snapshot = Snapshot({KEY: Model(key=KEY)}, {each.id: each for each in instances})
    found = [decide(target, snapshot, Circumstances({}, turn=turn)) for turn in range(len(instances))]
    return {each.instance.id for each in found if isinstance(each, Serve)}


def test_a_models_key_selects_the_instances_without_adapters() -> None:
    plain, poet = instance(KEY), instance("poet", lora=["poet.gguf"])
    assert served(ModelName(KEY), plain, poet, instance(f"{KEY}:2")) == {KEY, f"{KEY}:2"}
    assert served(InstanceName("poet"), plain, poet) == {"poet"}


def test_a_models_key_selects_instances_with_adapters_when_there_are_no_others() -> None:
    assert served(ModelName(KEY), instance("poet", lora=["poet.gguf"])) == {"poet"}
    coming = instance(KEY, InstanceState.LOADING)
    assert served(ModelName(KEY), coming, instance("poet", lora=["poet.gguf"])) == set(), "one is on its way"
