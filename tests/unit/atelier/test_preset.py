"""Presets: checked field by field, changed, compared, and LM Studio's files."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import InvalidRequest
from atelier.settings import TABLE
from atelier.settings.lmstudio_preset import BY_KEY, read_file, write_file
from atelier.settings.preset import (
    Preset,
    changed,
    check_settings,
    difference,
    settings_from_json,
    settings_json,
)

LMSTUDIO_FILE = {
    "identifier": "@local:precise",
    "name": "Precise",
    "changed": True,
    "operation": {
        "fields": [
            {"key": "llm.prediction.temperature", "value": 0.1},
            {"key": "llm.prediction.topKSampling", "value": 20},
            {"key": "llm.prediction.topPSampling", "value": {"checked": True, "value": 0.9}},
            {"key": "llm.prediction.minPSampling", "value": {"checked": False, "value": 0.3}},
            {"key": "llm.prediction.systemPrompt", "value": "Be brief."},
            {"key": "llm.prediction.stopStrings", "value": ["###"]},
            {
                "key": "llm.prediction.promptTemplate",
                "value": {"type": "jinja", "jinjaPromptTemplate": {"template": "{{ messages }}"}, "stopStrings": []},
            },
            {"key": "llm.prediction.tools", "value": {"type": "none"}},
        ]
    },
    "load": {"fields": [{"key": "llm.load.contextLength", "value": 8192}]},
}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"sampling": {}}, "sampling"),
        ({"inference": {"temprature": 0.2}}, "inference.temprature"),
        ({"inference": {"temperature": "hot"}}, "inference.temperature"),
        ({"inference": {"temperature": 9}}, "inference.temperature"),
        ({"inference": {"temperature": True}}, "inference.temperature"),
        ({"inference": {"top_k": 1.5}}, "inference.top_k"),
        ({"inference": {"logit_bias": {"x": 1.0}}}, "inference.logit_bias.x"),
        ({"load": {"kv_type": "q9"}}, "load.kv_type"),
        ({"load": {"context_length": 1}}, "load.context_length"),
        ({"prompt": {"stop": ["x"] * 17}}, "prompt.stop"),
        ({"prompt": {"system_prompt": "x" * 200_001}}, "prompt.system_prompt"),
        ({"inference": {"seed": 2**70}}, "inference"),
    ],
)
def test_an_invalid_setting_is_rejected_by_name(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_settings(given)
    assert (caught.value.param or "").startswith(param)


def test_a_misspelt_setting_is_rejected_with_a_suggestion() -> None:
    with pytest.raises(InvalidRequest, match="temperature"):
        check_settings({"inference": {"temprature": 0.2}})


def test_unset_settings_are_omitted() -> None:
    assert check_settings({"inference": {"seed": None, "temperature": 0.5}, "load": {}}) == {
        "inference": {"temperature": 0.5}
    }


def test_numbers_may_be_keys() -> None:
    wanted = {"inference": {"logit_bias": {5: -1.0}}}
    assert check_settings({"inference": {"logit_bias": {"5": -1.0}}}) == wanted
    assert settings_from_json(settings_json(check_settings(wanted))) == wanted


def test_a_change_keeps_the_other_settings() -> None:
    before = Preset(name="a", settings={"inference": {"temperature": 0.5, "top_k": 3}})
    after = changed(before, {"inference": {"top_k": None}, "load": {"parallel": 2}})
    assert after == {"inference": {"temperature": 0.5}, "load": {"parallel": 2}}


def test_a_difference_names_both_sides_in_the_tables_order() -> None:
    before = Preset(name="a", settings={"inference": {"temperature": 0.5, "top_k": 3}})
    after = Preset(name="b", settings={"inference": {"temperature": 0.7, "top_k": 3}, "load": {"parallel": 2}})
    assert [(each.group, each.name, each.before, each.after) for each in difference(before, after)] == [
        ("load", "parallel", None, 2),
        ("inference", "temperature", 0.5, 0.7),
    ]
    assert difference(before, before) == []


def test_lm_studios_file_is_read() -> None:
    read = read_file(LMSTUDIO_FILE)
    assert read.name == "Precise"
    assert read.settings == {
        "inference": {"temperature": 0.1, "top_k": 20, "top_p": 0.9},
        "prompt": {"system_prompt": "Be brief.", "stop": ["###"], "chat_template": "{{ messages }}"},
        "load": {"context_length": 8192},
    }
    assert read.ignored == ("llm.prediction.tools",)


def test_a_file_written_for_lm_studio_is_read_back() -> None:
    load = {"k_type": "q8_0", "v_type": "q4_0", "load_seed": 3}
    settings = check_settings(read_file(LMSTUDIO_FILE).settings | {"load": load})
    written = json.loads(json.dumps(write_file(Preset(name="Precise", settings=settings))))
    assert read_file(written).settings == settings
    fields = {field["key"]: field["value"] for field in written["operation"]["fields"]}
    assert fields["llm.prediction.topPSampling"] == {"checked": True, "value": 0.9}


def test_one_type_of_the_cache_is_written_as_two() -> None:
    written = write_file(Preset(name="a", settings={"load": {"kv_type": "q8_0", "v_type": "f16"}}))
    assert read_file(written).settings == {"load": {"k_type": "q8_0", "v_type": "f16"}}


@pytest.mark.parametrize(
    "file",
    [
        {},
        {"operation": []},
        {"operation": {"fields": [{"value": 1}]}},
        {"operation": {"fields": ["x"]}},
        {"operation": {"fields": [{"key": "llm.prediction.temperature", "value": "hot"}]}},
    ],
)
def test_a_file_other_than_an_lm_studio_preset_is_rejected(file: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        read_file(file)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 5),
            "top_k": st.integers(0, 1000),
            "seed": st.integers(0, 2**31),
            "max_tokens": st.integers(1, 10_000),
            "min_p": st.floats(0, 1),
        },
    )
)
def test_every_preset_survives_a_round_trip_through_lm_studios_format(inference: dict[str, Any]) -> None:
    settings = check_settings({"inference": inference})
    assert read_file(write_file(Preset(name="x", settings=settings))).settings == settings


def test_every_key_of_lm_studio_refers_to_one_setting() -> None:
    keys = [row.facts.preset_key for rows in TABLE.values() for row in rows.values() if row.facts.preset_key]
    assert len(keys) == len(BY_KEY)
