"""A model's family, by the marks in its chat template: the template is what the model was trained with.

GGUF files name no tool format, and an architecture has several.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.output.format_table import FORMATS, HY3, KIMI_K3, REASONING
from worker.output.format_types import Format, ReasoningMarks


@dataclass(frozen=True, slots=True)
class Sign:
    """Marks that are all in a family's template, and in that of no other one further down the table."""

    format: str
    marks: tuple[str, ...]


SIGNS = (
    Sign("muse-glimmer", ("<atem:function_calls>",)),
    Sign("harmony", ("<|channel|>", "<|message|>")),
    Sign("kimi-k3", ("<|open|>", "<|close|>", "<|end_of_msg|>")),
    Sign("kimi-k2", ("<|tool_calls_section_begin|>",)),
    Sign("deepseek-v3.2", ("｜DSML｜", "function_calls")),
    Sign("deepseek-v4", ("｜DSML｜", "tool_calls")),
    Sign("deepseek-r1", ("<｜tool▁calls▁begin｜>", "```json")),
    Sign("deepseek-v3.1", ("<｜tool▁calls▁begin｜>",)),
    Sign("minimax-m3", ("]<]minimax[>[", "<tool_call>")),
    Sign("minimax-m2", ("<minimax:tool_call>",)),
    Sign("seed-oss", ("<seed:tool_call>",)),
    Sign("qwen-coder", ("<function=", "<parameter=")),
    Sign("glm", ("<arg_key>",)),
    Sign("mistral-args", ("[TOOL_CALLS]", "[ARGS]")),
    Sign("mistral", ("[TOOL_CALLS]",)),
    Sign("command-r7b", ("<|START_ACTION|>",)),
    Sign("command-r", ("Action:", "tool_name")),
    Sign("lfm2", ("<|tool_call_start|>",)),
    Sign("lfm2", ("<|tool_list_start|>",)),
    Sign("lfm2", ("List of tools: [",)),
    Sign("apertus", ("<|tools_prefix|>",)),
    Sign("gigachat-3.1", ("<|role_sep|>", "<|function_call|>")),
    Sign("gigachat-3", ("<|role_sep|>", "function call")),
    Sign("minicpm5", ('<function name="', '<param name="')),
    Sign("hy3", ("<tool_sep{}>", "opensource")),
    Sign("hy3", ("<tool_sep:opensource>",)),
    Sign("solar-open", ("<|tool_call:begin|>",)),
    Sign("nemotron", ("<TOOLCALL>",)),
    Sign("apriel", ("<tool_calls>[",)),
    Sign("minimax-m1", ("<tool_calls>",)),
    Sign("firefunction", ("functools[",)),
    Sign("granite", ("<|tool_call|>",)),
    Sign("functionary-v3.2", (">>>", "recipient")),
    Sign("functionary-v3.2", (">>>all",)),
    Sign("function-tag", ("<function=",)),
    Sign("hermes", ("<tool_call>",)),
    Sign("pythonic", ("<|python_start|>",)),
    Sign("pythonic", ("[func_name1(",)),
    Sign("llama3-json", ("<|python_tag|>",)),
    Sign("llama3-json", ("<|start_header_id|>", '"parameters"')),
    Sign("functiongemma", ("<start_function_call>",)),
    Sign("gemma-4", ("<|tool_call>call:",)),
    Sign("gemma", ("tool_code",)),
)


SPELLED = (
    (KIMI_K3, ("<|open|>", "open_tag('think')")),
    (HY3, ("<think{}>", "opensource")),
)
"""Marks of reasoning that a template puts together, and what it says instead."""


def knows_tools(template: str) -> bool:
    """Whether the template writes tools into the prompt."""
    return "tools" in template


def recognise_format(template: str) -> Format:
    """How the model writes tool calls; as plain JSON where its template does not say."""
    if knows_tools(template) or "<|channel|>" in template:
        for sign in SIGNS:
            if all(mark in template for mark in sign.marks):
                return FORMATS[sign.format]
    return FORMATS["json"]


def recognise_reasoning(template: str) -> ReasoningMarks | None:
    """Templates take the reasoning out of earlier answers by its end mark, or write its first mark themselves."""
    for marks, signs in SPELLED:
        if all(sign in template for sign in signs):
            return marks
    return next((marks for marks in REASONING if marks.end in template or marks.start in template), None)


def opened_by(prompt: str, marks: Sequence[str]) -> str:
    """The mark that a rendered prompt ends with, so that the completion goes on after it."""
    end = prompt.rstrip()
    return max((mark for mark in marks if mark and end.endswith(mark)), key=len, default="")
