"""Which family a model belongs to, by its chat template: what the template writes, the model was trained on.

GGUF files name no tool call format, and models of one architecture use several.
"""

from dataclasses import dataclass
from functools import lru_cache

from worker.output.family_format import FamilyFormat, ReasoningMarks
from worker.output.family_table import FORMATS


@dataclass(frozen=True, slots=True)
class Signature:
    """Texts that a family's template contains, all of them. The first signature that matches decides."""

    format: str
    texts: tuple[str, ...]


SIGNATURES = (
    Signature("muse-glimmer", ("<atem:function_calls>",)),
    Signature("harmony", ("<|channel|>", "<|message|>")),
    Signature("kimi-k3", ("<|open|>", "<|close|>", "<|end_of_msg|>")),
    Signature("kimi-k2", ("<|tool_calls_section_begin|>",)),
    Signature("deepseek-v3.2", ("｜DSML｜", "function_calls")),
    Signature("deepseek-v4", ("｜DSML｜", "tool_calls")),
    Signature("deepseek-r1", ("<｜tool▁calls▁begin｜>", "```json")),
    Signature("deepseek-v3.1", ("<｜tool▁calls▁begin｜>",)),
    Signature("minimax-m3", ("]<]minimax[>[", "<tool_call>")),
    Signature("minimax-m2", ("<minimax:tool_call>",)),
    Signature("seed-oss", ("<seed:tool_call>",)),
    Signature("qwen-coder", ("<function=", "<parameter=")),
    Signature("glm", ("<arg_key>",)),
    Signature("mistral-args", ("[TOOL_CALLS]", "[ARGS]")),
    Signature("mistral", ("[TOOL_CALLS]",)),
    Signature("command-r7b", ("<|START_ACTION|>",)),
    Signature("command-r", ("Action:", "tool_name")),
    Signature("lfm2", ("<|tool_call_start|>",)),
    Signature("lfm2", ("<|tool_list_start|>",)),
    Signature("lfm2", ("List of tools: [",)),
    Signature("apertus", ("<|tools_prefix|>",)),
    Signature("gigachat-3.1", ("<|role_sep|>", "<|function_call|>")),
    Signature("gigachat-3", ("<|role_sep|>", "function call")),
    Signature("minicpm5", ('<function name="', '<param name="')),
    Signature("hy3", ("<tool_sep{}>", "opensource")),
    Signature("hy3", ("<tool_sep:opensource>",)),
    Signature("solar-open", ("<|tool_call:begin|>",)),
    Signature("nemotron", ("<TOOLCALL>",)),
    Signature("apriel", ("<tool_calls>[",)),
    Signature("minimax-m1", ("<tool_calls>",)),
    Signature("firefunction", ("functools[",)),
    Signature("granite", ("<|tool_call|>",)),
    Signature("functionary-v3.2", (">>>", "recipient")),
    Signature("functionary-v3.2", (">>>all",)),
    Signature("function-tag", ("<function=",)),
    Signature("hermes", ("<tool_call>",)),
    Signature("pythonic", ("<|python_start|>",)),
    Signature("pythonic", ("[func_name1(",)),
    Signature("llama3-json", ("<|python_tag|>",)),
    Signature("llama3-json", ("<|start_header_id|>", '"parameters"')),
    Signature("functiongemma", ("<start_function_call>",)),
    Signature("gemma-4", ("<|tool_call>call:",)),
    Signature("gemma", ("tool_code",)),
)

HY3 = ReasoningMarks("<think:opensource>", "</think:opensource>")
KIMI_K3 = ReasoningMarks("<|open|>think<|sep|>", "<|close|>think<|sep|>")
REASONING = (
    ReasoningMarks("<think>", "</think>"),
    ReasoningMarks("[THINK]", "[/THINK]"),
    ReasoningMarks("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningMarks("<seed:think>", "</seed:think>"),
    ReasoningMarks("◁think▷", "◁/think▷"),
    ReasoningMarks("<mm:think>", "</mm:think>"),
    ReasoningMarks("<|channel>thought", "<channel|>"),
    HY3,
    ReasoningMarks("<|inner_prefix|>", "<|inner_suffix|>"),
    ReasoningMarks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ReasoningMarks("<|think|>", "<|end|><|begin|>assistant"),
    KIMI_K3,
)
COMPOSED_REASONING = (
    (KIMI_K3, ("<|open|>", "open_tag('think')")),
    (HY3, ("<think{}>", "opensource")),
)
"""Reasoning marks that a template composes of parts, and what it contains instead of them."""


@dataclass(frozen=True, slots=True)
class Family:
    """What a chat template shows of its model."""

    format: FamilyFormat
    reasoning: ReasoningMarks | None
    knows_tools: bool
    drops_calls: bool


@lru_cache(maxsize=32)
def detect_family(template: str) -> Family:
    """What every request with this template needs to know of it."""
    return Family(detect_format(template), detect_reasoning(template), knows_tools(template), drops_calls(template))


def detect_format(template: str) -> FamilyFormat:
    """How the model writes tool calls: as plain JSON unless its template shows otherwise."""
    if knows_tools(template) or "<|channel|>" in template:
        for signature in SIGNATURES:
            if all(text in template for text in signature.texts):
                return FORMATS[signature.format]
    return FORMATS["json"]


def detect_reasoning(template: str) -> ReasoningMarks | None:
    """By either mark: templates use the end to cut reasoning out of earlier answers, or write the start themselves."""
    for marks, texts in COMPOSED_REASONING:
        if all(text in template for text in texts):
            return marks
    return next((marks for marks in REASONING if marks.end in template or marks.start in template), None)


def knows_tools(template: str) -> bool:
    """Whether the template writes tools into the prompt."""
    return "tools" in template


def drops_calls(template: str) -> bool:
    """Whether the template writes tools, but leaves out the calls of earlier turns."""
    return knows_tools(template) and "tool_calls" not in template
