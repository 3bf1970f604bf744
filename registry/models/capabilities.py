"""What a model was made for, as its chat template tells: pure."""

from dataclasses import dataclass

import jinja2
from jinja2 import nodes

LONGEST = 200_000  # characters of a template that is looked at
THINKS = ("<think>", "enable_thinking", "reasoning_content", "<|channel|>analysis")


@dataclass(frozen=True, slots=True)
class Capabilities:
    chat: bool  # it has a template
    tools: bool  # that asks for the tools it may call
    reasoning: bool  # or knows thoughts apart from answers


def capabilities_of(template: str | None) -> Capabilities:
    if template is None:
        return Capabilities(chat=False, tools=False, reasoning=False)
    return Capabilities(chat=True, tools=_reads(template, "tools"), reasoning=any(sign in template for sign in THINKS))


def _reads(template: str, name: str) -> bool:
    """Whether the template uses a variable of this name that it has not set itself; False of one that is no Jinja.

    By its syntax alone: to compile a stranger's template is to compute what is constant in it.
    """
    if len(template) > LONGEST:
        return False
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (jinja2.TemplateError, RecursionError, ValueError):
        return False
    names = [node for node in tree.find_all(nodes.Name) if node.name == name]
    return any(node.ctx == "load" for node in names) and not any(node.ctx == "store" for node in names)
