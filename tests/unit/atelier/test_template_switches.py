"""A request's reasoning options, under the names and values of several families' templates."""

from typing import Any

import pytest

from atelier.errors import InvalidTemplate
from atelier.templates.chat_template import ChatTemplate

LISTED = (
    "{% if not reasoning_effort is defined %}{% set reasoning_effort = 'no_think' %}"
    "{% elif reasoning_effort not in ['high', 'low', 'no_think'] %}{{ raise_exception('takes no_think/low/high') }}"
    "{% endif %}{{ reasoning_effort }}"
)
OTHERWISE = (
    "{% if thinking is undefined %}{% set thinking = true %}{% endif %}"
    "{% if thinking_effort is undefined %}{% set thinking_effort = 'max' %}{% endif %}"
    "{% if thinking and thinking_effort not in ['low', 'high', 'max'] %}{{ raise_exception('no') }}{% endif %}"
    "{{ thinking_effort if thinking else 'off' }}"
)
SHORTEST = (
    "{% set reasoning_effort = reasoning_effort if reasoning_effort is defined else 'high' %}"
    "{{ 'off' if reasoning_effort in ['low', 'minimal'] else 'on' }}"
)
WRITTEN = "{{ '<|channel|>' }}{{ reasoning_effort if reasoning_effort is defined else 'medium' }}"
SHOWN = "{{ [enable_thinking, thinking, reasoning_effort] }}"
NAMED = "{{ enable_thinking }}"


def render(source: str, arguments: dict[str, Any]) -> str:
    return ChatTemplate(source).render([], bos="", eos="", arguments=arguments).removeprefix("<|channel|>")


def effort(value: str) -> dict[str, Any]:
    """The arguments that the gateway passes for an effort."""
    return {"reasoning_effort": value, "enable_thinking": value != "none"}


OFF, ON = {"enable_thinking": False}, {"enable_thinking": True}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, "no_think"),
        (OFF, "no_think"),
        (ON, "high"),
        (effort("none"), "no_think"),
        (effort("minimal"), "low"),
        (effort("low"), "low"),
        (effort("medium"), "high"),
        (effort("high"), "high"),
        (effort("xhigh"), "high"),
        (effort("max"), "high"),
        ({"reasoning_effort": "high", **OFF}, "no_think"),
        ({"reasoning_effort": "no_think"}, "no_think"),
    ],
)
def test_an_effort_is_mapped_to_the_nearest_that_a_template_accepts(given: dict[str, Any], taken: str) -> None:
    assert render(LISTED, given) == taken


def test_an_unknown_effort_is_rejected_with_those_that_the_template_accepts() -> None:
    with pytest.raises(InvalidTemplate, match="no_think/low/high"):
        render(LISTED, {"reasoning_effort": "some"})


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, "max"),
        (OFF, "off"),
        (ON, "max"),
        (effort("none"), "off"),
        (effort("minimal"), "low"),
        (effort("medium"), "high"),
        (effort("xhigh"), "max"),
        ({**effort("low"), "thinking_effort": "high"}, "high"),
        ({"thinking": False}, "off"),
    ],
)
def test_an_effort_is_passed_under_the_templates_own_names(given: dict[str, Any], taken: str) -> None:
    assert render(OTHERWISE, given) == taken


@pytest.mark.parametrize(
    ("given", "thinks"),
    [({}, "on"), (OFF, "off"), (ON, "on"), (effort("none"), "off"), (effort("low"), "off"), (effort("max"), "on")],
)
def test_none_is_the_lowest_effort_of_a_template_without_a_switch(given: dict[str, Any], thinks: str) -> None:
    assert render(SHORTEST, given) == thinks


@pytest.mark.parametrize(
    ("given", "written"),
    [({}, "medium"), (ON, "medium"), (OFF, "low"), (effort("minimal"), "low"), (effort("xhigh"), "high")],
)
def test_a_template_that_writes_any_effort_gets_one_that_its_models_support(
    given: dict[str, Any], written: str
) -> None:
    assert render(WRITTEN, given) == written


@pytest.mark.parametrize(("given", "taken"), [("max", "high"), ("xhigh", "high"), ("high", "high"), ("low", "low")])
def test_an_effort_beyond_those_of_a_template_is_mapped_to_its_extreme(given: str, taken: str) -> None:
    source = "{% if reasoning_effort == 'high' %}a lot{% endif %}{{ reasoning_effort }}"
    assert render(source, effort(given)).endswith(taken)


def test_a_template_that_reads_both_names_gets_both() -> None:
    assert render(SHOWN, effort("none")) == "[False, False, 'none']"
    assert render(SHOWN, effort("xhigh")) == "[True, True, 'xhigh']"
    assert render(SHOWN, {"thinking": True}) == "[True, True, Undefined]"


def test_an_explicit_argument_is_not_changed() -> None:
    assert render(SHOWN, {**OFF, "thinking": True}) == "[False, True, Undefined]"
    assert render(NAMED, {"enable_thinking": "auto", "thinking": True}) == "auto"


def test_an_effort_other_than_a_string_is_passed_to_the_template() -> None:
    assert render("{{ reasoning_effort }}", {"reasoning_effort": ["low"], **ON}) == "['low']"


def test_nothing_is_added_without_a_reasoning_option() -> None:
    assert render(SHOWN, {"today": "Friday"}) == "[Undefined, Undefined, Undefined]"


def test_thinking_mode_and_budget_are_switches_too() -> None:
    source = "{{ [thinking_mode, thinking_budget] }}"
    assert render(source, OFF) == "['disabled', 0]"
    assert render(source, ON) == "['enabled', Undefined]"
    assert render(source, {**ON, "thinking_budget": 2048}) == "['enabled', 2048]"


def test_effort_none_overrides_enabled_thinking() -> None:
    assert render(LISTED, {"reasoning_effort": "none", **ON}) == "no_think"
