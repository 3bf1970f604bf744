"""What a model was made for, as its chat template tells: pure."""

from dataclasses import dataclass

import jinja2
from jinja2 import meta

THINKS = ("<think>", "enable_thinking", "reasoning_content", "<|channel|>analysis")


@dataclass(frozen=True, slots=True)
class Capabilities:
    chat: bool  # it has a template
    tools: bool  # that asks for the tools it may call
    reasoning: bool  # or knows thoughts apart from answers


def capabilities_of(template: str | None) -> Capabilities:
    if template is None:
        return Capabilities(chat=False, tools=False, reasoning=False)
    return Capabilities(
        chat=True, tools="tools" in _variables(template), reasoning=any(sign in template for sign in THINKS)
    )


def _variables(template: str) -> set[str]:
    """That the template is given; none of one that is no Jinja."""
    try:
        return meta.find_undeclared_variables(
            jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
        )
    except (jinja2.TemplateError, RecursionError):
        return set()
