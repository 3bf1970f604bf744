"""Whether and how much to think, by the names and values that one template has for it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from atelier.templates.template_reading import TemplateReading

SWITCHES = ("enable_thinking", "thinking", "reasoning")  # true or false
MODE = "thinking_mode"  # enabled or disabled
BUDGET = "thinking_budget"  # tokens; 0: none
EFFORTS = ("reasoning_effort", "thinking_effort", "reasoning_strength")
RANKS = {"none": 0, "no_think": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5, "max": 6}
NONE, USUAL = "none", "medium"
LOW = RANKS["low"]
NEAR = {"minimal": ("low",), "xhigh": ("high",), "max": ("xhigh", "high")}  # for templates that know no such extreme
WRITTEN = (("<|channel|>", frozenset({"low", "medium", "high"})),)
"""Marks of templates that write the effort unseen, and what their models were trained with: gpt-oss's."""


def fit_arguments(given: Mapping[str, Any], reading: TemplateReading, source: str) -> dict[str, Any]:
    """What is given, and the same by the other names that the template reads.

    An effort that it does not take becomes the next higher one that it takes, or its highest.
    """
    on = next((given[name] for name in SWITCHES if isinstance(given.get(name), bool)), None)
    effort = next((given[name] for name in EFFORTS if isinstance(given.get(name), str)), None)
    if on is None and effort is None:
        return dict(given)
    others: dict[str, Any] = _switches(on if on is not None else effort != NONE)
    for name in EFFORTS:
        others[name] = _effort(given.get(name, effort), on, name, reading, source)
    added = {name: value for name, value in others.items() if name in reading.variables and value is not None}
    return {**added, **given, **{name: value for name, value in added.items() if name in EFFORTS}}


def _switches(on: bool) -> dict[str, Any]:
    return {**dict.fromkeys(SWITCHES, on), MODE: "enabled" if on else "disabled", **({} if on else {BUDGET: 0})}


def _effort(effort: Any, on: bool | None, name: str, reading: TemplateReading, source: str) -> Any:
    """None: what the template takes by itself."""
    if not isinstance(effort, str | None):
        return effort
    taken = _ranked(reading.demanded.get(name) or _written(source))
    if reading.variables.isdisjoint((*SWITCHES, MODE)):
        effort = _switched(effort, on, taken or _ranked(reading.compared.get(name, ())))
    if effort not in RANKS or not taken:
        compared = reading.compared.get(name, ())
        return next((value for value in (effort, *NEAR.get(effort, ())) if value in compared), effort)
    return next((value for value in taken if RANKS[value] >= RANKS[effort]), taken[-1])


def _switched(effort: Any, on: bool | None, known: Sequence[str]) -> Any:
    """Where the effort is the only switch. `known`: the efforts that the template tells apart, lowest first."""
    lowest = RANKS[known[0]] if known else RANKS[USUAL]
    if (effort == NONE or on is False) and lowest <= LOW:
        return known[0]
    return USUAL if effort is None and on and lowest == 0 else effort


def _written(source: str) -> Iterable[str]:
    return next((values for mark, values in WRITTEN if mark in source), ())


def _ranked(values: Iterable[str]) -> list[str]:
    return sorted((value for value in values if value in RANKS), key=RANKS.__getitem__)
