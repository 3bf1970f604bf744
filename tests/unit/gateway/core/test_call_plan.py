"""Precedence of settings: the strongest layer that sets a field wins, and is named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import InvalidRequest, PresetNotFound
from atelier.settings import BUILT_IN, TABLE, Value
from atelier.settings.preset import Preset
from gateway.core.call import Call, Chat, Origin
from gateway.core.call_plan import effective, find_preset, layers_of, load_values, make_plan
from gateway.core.wire import submit_message
from gateway.fleet.snapshot import Instance, Model, Snapshot

KEY = "acme/tiny"
ORIGINS = ("request", "preset p", "instance acme/tiny with preset q", "default preset d", "model file")
SETTINGS = {"temperature": st.floats(0, 5), "top_k": st.integers(0, 100), "seed": st.integers(0, 1000)}
Some = st.fixed_dictionaries({}, optional=SETTINGS)


def preset(name: str, values: dict[str, Any], **more: Any) -> Preset:
    return Preset(name=name, settings={"inference": values}, **more)


def resolved(request: Any, chosen: Any, own: Any, default: Any, file: Any) -> dict[str, Any]:
    model = Model(key=KEY, sampling_defaults=file)
    instance = Instance(id=KEY, model_key=KEY, own={"inference": own}, preset="q")
    return effective(layers_of(request, preset("p", chosen), preset("d", default), model, instance)).values


@given(st.tuples(Some, Some, Some, Some, Some))
def test_the_highest_layer_that_sets_a_field_wins(layers: tuple[dict[str, Any], ...]) -> None:
    values = resolved(*layers)
    for name in SETTINGS:
        winner = next(
            ((layer[name], origin) for layer, origin in zip(layers, ORIGINS, strict=True) if name in layer), None
        )
        expected = winner or (TABLE["inference"][name].default, BUILT_IN)
        assert (values[name].value, values[name].origin) == expected


def test_without_a_preset_only_the_instance_is_named() -> None:
    instance = Instance(id="mine", model_key=KEY, own={"prompt": {"stop": ["x"]}})
    values = effective(layers_of({}, None, None, Model(key=KEY), instance)).values
    assert (values["stop"].value, values["stop"].origin) == (["x"], "instance mine")


def test_a_preset_for_another_model_is_refused() -> None:
    snapshot = Snapshot({KEY: Model(key=KEY)}, presets={"p": preset("p", {}, model="acme/other")})
    with pytest.raises(InvalidRequest, match="acme/other"):
        find_preset("p", snapshot.models[KEY], snapshot)
    with pytest.raises(PresetNotFound, match="Near names: p"):
        find_preset("p1", snapshot.models[KEY], snapshot)
    assert find_preset(None, snapshot.models[KEY], snapshot) is None


def test_the_presets_prompt_settings_reach_the_worker() -> None:
    chosen = Preset(name="p", settings={"prompt": {"system_prompt": "Be brief.", "chat_template": "T", "stop": ["#"]}})
    snapshot = Snapshot({KEY: Model(key=KEY)}, presets={"p": chosen})

    def sent(*messages: dict[str, Any], **settings: Any) -> Any:
        call = Call(model=KEY, prompts=[Chat(list(messages))], preset="p", settings=settings)
        plan = make_plan(call, Origin("r", "k"), snapshot)
        return submit_message(plan, call.prompts[0], plan.effective(None))

    plain = sent({"role": "user", "content": "hi"})
    assert plain.chat.messages_json.startswith(b'[{"role":"system","content":"Be brief."}')
    assert (plain.chat.template, list(plain.sampling.stop)) == ("T", ["#"])
    own = sent({"role": "system", "content": "Be long."}, {"role": "user", "content": "hi"}, stop=["!"])
    assert b"Be brief." not in own.chat.messages_json
    assert list(own.sampling.stop) == ["!"]


def test_load_settings_come_from_presets_until_there_is_an_instance() -> None:
    model = Model(key=KEY, max_context_length=2048)
    default = Preset(name="d", settings={"load": {"parallel": 2, "context_length": 9000}})
    values = load_values(model, None, None, default, [KEY])
    assert (values["parallel"].value, values["parallel"].origin) == (2, "default preset d")
    assert (values["context_length"].value, values["context_length"].origin) == (2048, "model file")
    instance = Instance(id=KEY, model_key=KEY, load={"parallel": 3}, load_origins={"parallel": "request"})
    running = load_values(model, instance, None, default, [KEY])
    assert (running["parallel"].value, running["parallel"].origin) == (3, "request")


@pytest.mark.parametrize(("named", "shown"), [("Small", "acme/small"), ("acme/none", "acme/none")])
def test_a_presets_draft_model_is_shown_by_its_key_and_used(named: str, shown: str) -> None:
    chosen = Preset(name="p", settings={"load": {"draft_model": named}})
    values = load_values(Model(key=KEY), None, chosen, None, [KEY, "acme/small"])
    assert values["draft_model"] == Value(shown, "preset p")
    assert values["speculation"] == Value("draft_model", "preset p")
