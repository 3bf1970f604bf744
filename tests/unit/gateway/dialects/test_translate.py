"""OpenAI's and LM Studio's bodies to the core's calls."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.generation_types import Finished, Statistics, StopReason
from atelier.settings import TABLE
from atelier.submission import Echo, Gbnf, JsonObject, JsonSchema, Lark, Regex
from gateway.core.call import Call, Chat, Infill, Origin, Text, Tokens
from gateway.core.call_plan import make_plan
from gateway.core.images import EncodedImage, RemoteImage
from gateway.core.wire import submit_message
from gateway.dialects.body import parse
from gateway.dialects.lmstudio.lmstudio_model_list import load_settings, params_string
from gateway.dialects.lmstudio.lmstudio_requests import LoadBody, V0ChatBody
from gateway.dialects.lmstudio.lmstudio_v0 import openai_body, stats
from gateway.dialects.openai.openai_calls import chat_call, completion_call, echoes
from gateway.dialects.openai.openai_requests import ChatBody, CompletionBody
from gateway.fleet.snapshot import Instance, Model, Snapshot
from protos import inference_pb2 as pb

HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> Call:
    return chat_call(parse(body(**fields), ChatBody))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO, **fields}).encode()


def completion(**fields: Any) -> Call:
    return completion_call(parse(json.dumps({"model": "m", **fields}).encode(), CompletionBody))


def openings(**fields: Any) -> list[str]:
    body = parse(json.dumps({"model": "m", **fields}).encode(), CompletionBody)
    return echoes(body, completion_call(body))


def refusal(raw: bytes, kind: Any = ChatBody) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(raw, kind)
    return caught.value


def messages_of(call: Call) -> list[dict[str, Any]]:
    (prompt,) = call.prompts
    assert isinstance(prompt, Chat)
    return prompt.messages


def test_every_sampling_setting_is_passed_on_by_name() -> None:
    values = {
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
        "min_p": 0.1,
        "repeat_penalty": 1.5,
        "repeat_last_n": 8,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "seed": 7,
        "max_tokens": 5,
        "logit_bias": {"5": -1.5},
        "ignore_eos": True,
        "typical_p": 0.9,
        "top_n_sigma": 1.5,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.2,
        "dynatemp_range": 0.3,
        "dynatemp_exponent": 1.5,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
        "dry_multiplier": 0.8,
        "dry_base": 2.0,
        "dry_allowed_length": 3,
        "dry_penalty_last_n": 100,
        "dry_sequence_breakers": ["x"],
        "context_overflow": "rollingWindow",
        "reasoning_budget": 512,
    }
    assert set(values) == {row.facts.openai for row in TABLE["inference"].values() if row.facts.openai}
    assert chat(**values, stop=["x"]).settings == {**values, "logit_bias": {5: -1.5}, "stop": ["x"]}


def test_unset_fields_are_left_to_other_layers() -> None:
    assert chat().settings == {}
    assert chat(temperature=None, stop=None, n=None, tools=None).settings == {}


def test_max_completion_tokens_is_the_newer_name_of_max_tokens() -> None:
    assert chat(max_completion_tokens=9, max_tokens=5).settings["max_tokens"] == 9


def test_one_stop_string_is_a_list_of_one() -> None:
    assert chat(stop="end").settings["stop"] == ["end"]


def test_the_developer_role_becomes_system_and_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = chat(
        messages=[{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts, "name": "Ann"}]
    )
    assert messages_of(call) == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "a\nb", "name": "Ann"},
    ]


def test_an_assistant_message_may_have_tool_calls_only() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    history = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
    ]
    assert messages_of(chat(messages=history)) == [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
    ]


def test_a_user_message_needs_content() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(messages=[*HELLO, {"role": "user"}])
    assert caught.value.param == "messages[1].content"


def test_images_are_collected_from_their_messages_in_order() -> None:
    parts = [
        {"type": "text", "text": "Look"},
        {"type": "text", "text": "here:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
    ]
    call = chat(messages=[{"role": "user", "content": parts}, *HELLO])
    assert call.prompts == [
        Chat(
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Look\nhere:"}, {"type": "image"}, {"type": "image"}],
                },
                *HELLO,
            ],
            (
                EncodedImage("aGk=", "messages[0].content[2].image_url.url"),
                RemoteImage("https://example.org/a.png", "messages[0].content[3].image_url"),
            ),
        )
    ]


@pytest.mark.parametrize(
    ("part", "kind", "param"),
    [
        ({"type": "input_audio"}, UnsupportedField, "messages[0].content[1]"),
        ({"type": "image_url"}, InvalidRequest, "messages[0].content[1].image_url"),
        ({"type": "image_url", "image_url": 5}, InvalidRequest, "messages[0].content[1].image_url"),
        ({"type": "image_url", "image_url": {"url": 5}}, InvalidRequest, "messages[0].content[1].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:,"}}, InvalidRequest, "messages[0].content[1].image_url.url"),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, InvalidRequest, "messages[0].content[1].image_url"),
    ],
)
def test_a_part_other_than_text_or_image_is_rejected_by_field_path(
    part: dict[str, Any], kind: type[InvalidRequest], param: str
) -> None:
    with pytest.raises(kind) as caught:
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, part]}])
    assert caught.value.param == param


def test_response_formats_become_constraints() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    assert chat(response_format={"type": "text"}).constraint is None
    assert chat(response_format={"type": "json_object"}).constraint == JsonObject()
    asked = chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}).constraint
    assert isinstance(asked, JsonSchema)
    assert asked.schema == '{"type":"object","properties":{"b":{},"a":{}}}'  # the order of properties is kept


@pytest.mark.parametrize("strict", [None, False, True])
def test_a_schema_says_whether_it_is_strict(strict: bool | None) -> None:
    asked = {"type": "json_schema", "json_schema": {"schema": {}, "strict": strict}}
    assert chat(response_format=asked).constraint == JsonSchema("{}", strict)


def test_grammars_and_regular_expressions_become_constraints() -> None:
    assert chat(regex="a+").constraint == Regex("a+")
    assert completion(prompt="x", grammar='root ::= "a"').constraint == Gbnf('root ::= "a"')
    assert chat(grammar='\n%llguidance {}\nstart: "a"').constraint == Lark('\n%llguidance {}\nstart: "a"')


def test_an_empty_grammar_is_a_grammar() -> None:
    assert chat(grammar="").constraint == Gbnf("")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"regex": "a", "grammar": 'root ::= "a"'}, "regex"),
        ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, "grammar"),
        ({"response_format": {"type": "json_object"}, "regex": ""}, "regex"),
    ],
)
def test_two_constraints_are_rejected(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be combined") as caught:
        chat(**fields)
    assert caught.value.param == param


def test_a_text_format_can_be_combined_with_a_grammar() -> None:
    assert chat(response_format={"type": "text"}, regex="a").constraint == Regex("a")


@pytest.mark.parametrize("breakers", [[], [""], ["x" * 41], ["x"] * 17, "x"])
def test_sequence_breakers_are_limited(breakers: Any) -> None:
    assert "dry_sequence_breakers" in str(refusal(body(dry_sequence_breakers=breakers)).param)


def test_a_schema_format_without_a_schema_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(response_format={"type": "json_schema"})
    assert caught.value.param == "response_format.json_schema"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "x"}),
        ("modalities", ["text", "audio"]),
        ("prediction", {"type": "content"}),
        ("web_search_options", {}),
        ("moderation", {"model": "omni-moderation-latest", "policy": {"input": {"mode": "block"}}}),
        ("chat_template", "{{ x }}"),
    ],
)
def test_unsupported_fields_are_rejected_by_name(field: str, value: Any) -> None:
    with pytest.raises(UnsupportedField) as caught:
        chat(**{field: value})
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("best_of", {"prompt": "a", "best_of": 3, "stream": True}),
        ("suffix", {"prompt": ["a", "b"], "suffix": "x"}),
        ("suffix", {"prompt": [1, 2], "suffix": "x"}),
        ("echo", {"prompt": "a", "echo": True, "logprobs": 0, "suffix": "x"}),
    ],
)
def test_fields_unsupported_in_text_completions_are_rejected_by_name(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedField) as caught:
        completion(n=2, **fields)
    assert caught.value.param == field


def test_log_probabilities_are_requested_with_the_given_number_of_alternatives() -> None:
    assert chat().logprobs is None
    assert chat(logprobs=False, top_logprobs=0).logprobs is None
    assert chat(logprobs=True).logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).logprobs == 20
    assert completion(prompt="a").logprobs is None
    assert completion(prompt="a", logprobs=0).logprobs == 0
    assert completion(prompt="a", logprobs=5).logprobs == 5


def test_top_logprobs_without_logprobs_are_rejected() -> None:
    for fields in ({"top_logprobs": 1}, {"top_logprobs": 1, "logprobs": False}):
        with pytest.raises(InvalidRequest) as caught:
            chat(**fields)
        assert (caught.value.param, caught.value.status) == ("top_logprobs", 400)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ChatBody, "logprobs", 1),
        (ChatBody, "logprobs", "yes"),
        (ChatBody, "top_logprobs", 21),
        (ChatBody, "top_logprobs", -1),
        (CompletionBody, "logprobs", 6),
        (CompletionBody, "logprobs", -1),
        (CompletionBody, "logprobs", True),
        (CompletionBody, "echo", "yes"),
        (CompletionBody, "suffix", 1),
    ],
)
def test_invalid_log_probability_fields_are_rejected_by_name(kind: Any, field: str, value: Any) -> None:
    raw = json.dumps({"model": "m", "messages": HELLO, "prompt": "a", field: value}).encode()
    assert refusal(raw, kind).param == field


def test_a_suffix_makes_the_prompt_a_gap_to_fill() -> None:
    assert completion(prompt="a", suffix="b").prompts == [Infill("a", "b")]
    assert completion(prompt=["a"], suffix="b").prompts == [Infill("a", "b")]
    assert completion(prompt=["a", "b"], suffix="").prompts == [Text("a"), Text("b")]


def test_every_choice_of_a_prompt_echoes_it() -> None:
    assert openings(prompt=["a", "b"], n=2, best_of=3, echo=True) == ["a", "a", "b", "b"]
    assert openings(prompt="a", suffix="b", echo=True) == ["a"]
    assert openings(prompt="a") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [1, 2]},
        {"prompt": [[1], [2]]},
        {"prompt": "a", "logprobs": 0},
        {"prompt": ["a", "b"], "logprobs": 1, "max_tokens": 1},
    ],
)
def test_the_worker_echoes_the_prompt_when_its_tokens_are_needed(fields: dict[str, Any]) -> None:
    assert completion(echo=True, **fields).echo is Echo.FIRST
    assert completion(**fields).echo is None
    assert openings(echo=True, **fields) == []


def test_echo_without_new_tokens_returns_the_prompt_only() -> None:
    call = completion(prompt="a", echo=True, max_tokens=0)
    assert call.echo is Echo.ALONE
    assert call.settings["max_tokens"] == 1
    with pytest.raises(InvalidRequest) as caught:
        completion(prompt="a", max_tokens=0)
    assert caught.value.param == "max_tokens"


def test_best_of_requests_log_probabilities_of_its_own() -> None:
    call = completion(prompt=["a", "b"], n=2, best_of=5)
    assert (call.choices, call.logprobs) == (5, 0)
    assert completion(prompt="a", n=2, best_of=2).logprobs is None
    assert completion(prompt="a", best_of=2, logprobs=3).logprobs == 3
    with pytest.raises(InvalidRequest) as caught:
        completion(prompt="a", n=2, best_of=1)
    assert caught.value.param == "best_of"


def test_progress_is_requested_in_streams_only() -> None:
    assert chat(stream=True, return_progress=True).prompt_progress
    assert completion(prompt="a", stream=True, return_progress=True).prompt_progress
    assert not chat(return_progress=True).prompt_progress
    assert not chat(stream=True).prompt_progress


def test_a_call_requests_log_probabilities_and_progress_from_the_worker() -> None:
    def sent(call: Call) -> pb.Submit:
        plan = make_plan(call, Origin("id", "key"), Snapshot({"m": Model(key="m")}, {}))
        return submit_message(plan, call.prompts[0], plan.effective(None))

    plain = sent(completion(prompt="a"))
    assert not plain.HasField("logprobs")
    assert not plain.HasField("prompt_progress")
    detailed = sent(completion(prompt="a", suffix="b", logprobs=0, stream=True, return_progress=True))
    assert (detailed.infill.prefix, detailed.infill.suffix) == ("a", "b")
    assert detailed.HasField("logprobs")
    assert (detailed.logprobs, detailed.prompt_progress) == (0, True)


def test_values_without_effect_are_accepted() -> None:
    chat(tools=[], tool_choice="auto", functions=[], logprobs=False, top_logprobs=0, modalities=["text"], audio=None)
    chat(user="u", metadata={"a": "b"}, store=True, service_tier="auto", nonsense={"x": 1})
    completion(prompt="a", suffix="", echo=False, best_of=1)


@pytest.mark.parametrize(
    ("prompt", "inputs"),
    [
        ("a", [Text("a")]),
        ("", [Text("")]),
        (["a"], [Text("a")]),
        (["a", "b"], [Text("a"), Text("b")]),
        ([1, 2], [Tokens([1, 2])]),
        ([[1, 2], [3]], [Tokens([1, 2]), Tokens([3])]),
    ],
)
def test_every_form_of_prompt_is_accepted(prompt: Any, inputs: list[Any]) -> None:
    assert completion(prompt=prompt).prompts == inputs


@pytest.mark.parametrize(
    "prompt", [[], [[]], None, 3, {}, ["a", 1], [1, "a"], [1.5], [-1], [2**31], [True], [[1], "a"]]
)
def test_other_forms_of_prompt_are_refused(prompt: Any) -> None:
    error = refusal(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionBody)
    assert str(error.param).startswith("prompt")


def test_prompts_times_choices_are_limited() -> None:
    with pytest.raises(InvalidRequest, match="prompts times n"):
        completion(prompt=["a"] * 65, n=2)


ODD_NUMBERS = ["-1", "9223372036854775808", "NaN", "Infinity", "-Infinity", '"1"', "1e999", "[]", "{}", "true", "0.5"]
WHOLE = ["n", "top_k", "seed", "max_tokens", "max_completion_tokens", "repeat_last_n"]


@pytest.mark.parametrize("field", WHOLE)
@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_an_invalid_number_is_rejected_by_field_name(field: str, number: str) -> None:
    error = refusal(f'{{"model":"m","messages":[{{"role":"user","content":"x"}}],"{field}":{number}}}'.encode())
    assert error.param == field
    assert error.message.startswith(f"{field}: ")


NUMBERS = [(row.facts.openai, row.facts) for row in TABLE["inference"].values() if row.facts.maximum is not None]


@given(
    st.sampled_from(NUMBERS), st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.lists(st.integers()))
)
def test_any_value_is_either_within_the_tables_bounds_or_rejected_by_name(setting: Any, value: Any) -> None:
    name, facts = setting
    if name == "logit_bias":
        return
    try:
        given_settings = chat(**{name: value}).settings
    except InvalidRequest as error:
        refused = error
    else:
        assert facts.minimum <= given_settings[name] <= facts.maximum
        return
    assert (refused.param, refused.status) == (name, 400)


@pytest.mark.parametrize(
    "bias", ['{"x":1}', '{"-1":1}', '{"9223372036854775808":1}', '{"5":101}', '{"5":NaN}', '{"5":"1"}', "[]", "3"]
)
def test_an_invalid_logit_bias_is_rejected_by_field_name(bias: str) -> None:
    error = refusal(f'{{"model":"m","messages":[{{"role":"user","content":"x"}}],"logit_bias":{bias}}}'.encode())
    assert str(error.param).startswith("logit_bias")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"model": "\\ud800"}',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"metadata":{"x":NaN}}',
    ],
)
def test_a_body_other_than_a_json_object_is_rejected_without_quoting_it(raw: bytes) -> None:
    error = refusal(raw)
    assert error.status == 400
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", []),
        ("messages", "hello"),
        ("messages", [{"role": "king", "content": "x"}]),
        ("messages", [{"role": "user", "content": 3}]),
        ("messages", [{"role": "user", "content": [3]}]),
        ("messages", ["x"]),
        ("model", 3),
        ("model", None),
        ("stop", 3),
        ("stop", ["a"] * 17),
        ("stop", [""]),
        ("stop", [1]),
        ("stream", "yes"),
        ("stream_options", []),
        ("n", 9),
        ("n", 0),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": "x"}}),
        ("temperature", 5.1),
    ],
)
def test_wrong_types_are_rejected_by_field_name(field: str, value: Any) -> None:
    error = refusal(body(**{field: value}))
    assert str(error.param).startswith(field)
    assert "(" not in str(error.param)


def test_an_error_says_what_the_value_must_be() -> None:
    assert refusal(body(temperature=9)).message == "temperature: must be less than or equal to 5"
    assert refusal(b"{}").message == "model: is required"
    assert refusal(b"[]").message == "The body must be an object"


def test_v0_accepts_minus_one_as_no_limit() -> None:
    assert "max_tokens" not in chat_call(openai_body(parse(body(max_tokens=-1), V0ChatBody))).settings
    assert chat_call(openai_body(parse(body(max_tokens=4), V0ChatBody))).settings["max_tokens"] == 4
    for number in (0, -2):
        with pytest.raises(InvalidRequest) as caught:
            chat_call(openai_body(parse(body(max_tokens=number), V0ChatBody)))
        assert caught.value.param == "max_tokens"


def test_load_settings_have_lm_studios_names() -> None:
    raw = (
        b'{"model":"m","context_length":2048,"eval_batch_size":64,"offload_kv_cache_to_gpu":false,"tensor_split":[1,2]}'
    )
    assert load_settings(parse(raw, LoadBody)) == {
        "context_length": 2048,
        "batch_size": 64,
        "offload_kv": False,
        "tensor_split": [1.0, 2.0],
    }


def test_a_load_setting_out_of_bounds_is_rejected_by_name() -> None:
    assert refusal(b'{"model":"m","context_length":1}', LoadBody).param == "context_length"
    assert refusal(b'{"model":"m","kv_type":"q9"}', LoadBody).param == "kv_type"


def test_parameter_counts_are_abbreviated() -> None:
    counts = [134_515_008, 7_241_732_096, 70_000_000_000, 405_000_000_000, 1_000_000, 12]
    assert [params_string(count) for count in counts] == ["135M", "7.2B", "70B", "405B", "1M", "12"]


def test_a_chat_has_ten_thousand_messages_at_most() -> None:
    assert len(messages_of(chat(messages=HELLO * 10_000))) == 10_000
    assert refusal(body(messages=HELLO * 10_001)).param == "messages"


def test_a_preset_is_passed_to_the_core_by_name() -> None:
    assert (chat(preset="mine").preset, chat(preset=None).preset) == ("mine", None)
    assert refusal(body(preset=7)).param == "preset"


def test_a_draft_model_is_passed_to_the_routing_by_name() -> None:
    assert (chat(draft_model="tiny").draft_model, chat().draft_model) == ("tiny", None)
    assert refusal(body(draft_model=["tiny"])).param == "draft_model"


def test_a_ttl_applies_to_a_load() -> None:
    assert (chat(ttl=300).ttl, chat(ttl=-1).ttl, chat().ttl) == (300, -1, None)
    assert chat(ttl=300).settings == {}
    assert refusal(body(ttl=-2)).param == "ttl"


def test_lm_studios_statistics_count_drafted_tokens_if_there_were_any() -> None:
    def draft_stats(load: dict[str, Any], **figures: int) -> dict[str, Any]:
        finished = Finished(0, StopReason.EOS_FOUND, None, Statistics(**figures))
        all_stats = stats(finished, Instance(id="m", model_key="m", load=load), 1.0)
        return {name: value for name, value in all_stats.items() if "draft" in name}

    counts = {
        "total_draft_tokens_count": 9,
        "accepted_draft_tokens_count": 6,
        "rejected_draft_tokens_count": 3,
        "ignored_draft_tokens_count": 0,
    }
    assert draft_stats({}) == {}
    assert draft_stats({}, draft_tokens=9, accepted_draft_tokens=6) == counts
    with_draft = {"draft_model": "acme/small"}
    assert draft_stats(with_draft, draft_tokens=9, accepted_draft_tokens=6) == {**counts, **with_draft}
    assert draft_stats(with_draft) == {**dict.fromkeys(counts, 0), **with_draft}
