"""How model families write tool calls: one table, for reading them and for constraining what is written.

The texts are as the models write them. Where they have white space, readers take any, or none.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is written around each call."""

    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCall(Call):
    """{"name": "f", "arguments": {...}}, by these keys."""

    name_key: str = "name"
    arguments_key: str = "arguments"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCall(Call):
    """The name, something between, and the arguments as JSON."""

    between: str
    numbered: bool = False  # functions.name:0, which is the call's id too


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCall(NamedCall):
    """A message of OpenAI's harmony format, whose header names its channel and its recipient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedCall(Call):
    """The name, then each argument between marks of its own, as plain text of the type in the schema."""

    name_after: str
    key_before: str
    key_after: str
    value_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCall(Call):
    """f(a=1, b="x")"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BracedCall(Call):
    """f{a:1,b:<mark>x<mark>}: as JSON, with keys as they are and each string between marks."""

    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """`begin`, calls with `separator` between them, `end`."""

    name: str
    call: Call
    begin: str = ""
    end: str = ""
    listed: bool = False  # the calls are in square brackets
    separator: str | None = ""  # None: one call in a completion
    also: tuple[tuple[str, str], ...] = ()  # what else may begin calls, and end them; marks of their own
    bare: str = ""  # characters that may begin calls without a mark where the answer begins
    anywhere: bool = False  # or where any text does
    ignored: tuple[str, ...] = ()  # marks that stand for nothing
    results: str = ""  # the mark that begins what calls returned: the model goes on to make that up
    prompted: str = ""  # what prompts may end with, as the beginning of the completion
    id_length: int = 0  # characters of a call's id, as the family's templates want it; 0: OpenAI's ids

    @property
    def openings(self) -> tuple[str, ...]:
        """The marks that begin calls."""
        first = [] if isinstance(self.call, ChannelCall) else (self.begin or self.call.before).split()[:1]
        return (*first, *(mark for mark, _ in self.also))

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is written around calls and in them, and that may be tokens of its own."""
        call = [getattr(self.call, name) for name in self.call.__dataclass_fields__]
        around = [text for pair in self.also for text in pair]
        return tuple(
            text for text in [self.begin, self.end, self.results, *call, *around] if isinstance(text, str) and text
        )


FORMATS = {
    each.name: each
    for each in (
        Format(
            name="json",
            call=JsonCall(),
            separator="\n",
            also=(("<tool_call>", "</tool_call>"), ("```json", "```"), ("```tool_call", "```"), ("```", "```")),
            bare="{[",
            anywhere=True,
        ),
        Format(
            name="hermes",
            call=JsonCall(before="<tool_call>\n", after="\n</tool_call>"),
            separator="\n",
        ),
        Format(
            name="llama3-json",
            call=JsonCall(arguments_key="parameters"),
            separator="; ",
            also=(("<|python_tag|>", ""),),
            bare="{",
        ),
        Format(
            name="pythonic",
            call=PythonCall(),
            listed=True,
            separator=", ",
            also=(("<|python_start|>", "<|python_end|>"), ("<|python_tag|>", "")),
            bare="[",
        ),
        Format(
            name="lfm2",
            call=PythonCall(),
            begin="<|tool_call_start|>",
            listed=True,
            end="<|tool_call_end|>",
            separator=", ",
        ),
        Format(
            name="gemma",
            call=PythonCall(),
            begin="```tool_code\n",
            end="\n```",
            separator="\n",
        ),
        Format(
            name="functiongemma",
            call=BracedCall(before="<start_function_call>call:", after="<end_function_call>", quote="<escape>"),
            results="<start_function_response>",
        ),
        Format(
            name="gemma-4",
            call=BracedCall(before="<|tool_call>call:", after="<tool_call|>", quote='<|"|>'),
            results="<|tool_response>",
            ignored=("<|channel>thought\n<channel|>", "<channel|>"),
        ),
        Format(
            name="mistral",
            call=JsonCall(),
            begin="[TOOL_CALLS]",
            listed=True,
            separator=", ",
            id_length=9,
        ),
        Format(
            name="mistral-args",
            call=NamedCall(before="[TOOL_CALLS]", between="[ARGS]"),
            id_length=9,
        ),
        Format(
            name="functionary-v3.2",
            call=NamedCall(before=">>>", between="\n"),
            ignored=(">>>all\n",),
            prompted=">>>",
        ),
        Format(
            name="function-tag",
            call=NamedCall(before="<function=", between=">", after="</function>"),
            also=(("<|python_tag|><function=", ""),),
        ),
        Format(
            name="deepseek-r1",
            call=NamedCall(
                before="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                between="\n```json\n",
                after="\n```<｜tool▁call▁end｜>",
            ),
            begin="<｜tool▁calls▁begin｜>",
            end="<｜tool▁calls▁end｜>",
            separator="\n",
        ),
        Format(
            name="deepseek-v3.1",
            call=NamedCall(before="<｜tool▁call▁begin｜>", between="<｜tool▁sep｜>", after="<｜tool▁call▁end｜>"),
            begin="<｜tool▁calls▁begin｜>",
            end="<｜tool▁calls▁end｜>",
        ),
        Format(
            name="qwen-coder",
            call=MarkedCall(
                before="<tool_call>\n<function=",
                name_after=">\n",
                key_before="<parameter=",
                key_after=">\n",
                value_after="\n</parameter>\n",
                after="</function>\n</tool_call>",
            ),
            separator="\n",
            also=(("<function=", ""),),
        ),
        Format(
            name="seed-oss",
            call=MarkedCall(
                before="<seed:tool_call>\n<function=",
                name_after=">\n",
                key_before="<parameter=",
                key_after=">",
                value_after="</parameter>\n",
                after="</function>\n</seed:tool_call>",
            ),
            separator="\n",
        ),
        Format(
            name="minimax-m2",
            call=MarkedCall(
                before='<invoke name="',
                name_after='">\n',
                key_before='<parameter name="',
                key_after='">',
                value_after="</parameter>\n",
                after="</invoke>\n",
            ),
            begin="<minimax:tool_call>\n",
            end="</minimax:tool_call>",
        ),
        Format(
            name="glm",
            call=MarkedCall(
                before="<tool_call>",
                name_after="\n",
                key_before="<arg_key>",
                key_after="</arg_key>\n<arg_value>",
                value_after="</arg_value>\n",
                after="</tool_call>",
            ),
            separator="\n",
        ),
        Format(
            name="granite",
            call=JsonCall(),
            begin="<|tool_call|>",
            listed=True,
            separator=", ",
            also=(("<tool_call>", "</tool_call>"),),
            ignored=("<|/tool_call|>",),
        ),
        Format(
            name="nemotron",
            call=JsonCall(),
            begin="<TOOLCALL>",
            listed=True,
            end="</TOOLCALL>",
            separator=", ",
        ),
        Format(
            name="apriel",
            call=JsonCall(),
            begin="<tool_calls>",
            listed=True,
            end="</tool_calls>",
            separator=", ",
        ),
        Format(
            name="minimax-m1",
            call=JsonCall(),
            begin="<tool_calls>\n",
            end="\n</tool_calls>",
            separator="\n",
        ),
        Format(
            name="firefunction",
            call=JsonCall(),
            begin="functools",
            listed=True,
            separator=", ",
        ),
        Format(
            name="command-r",
            call=JsonCall(name_key="tool_name", arguments_key="parameters"),
            begin="Action:\n```json\n",
            listed=True,
            end="\n```",
            separator=", ",
        ),
        Format(
            name="command-r7b",
            call=JsonCall(name_key="tool_name", arguments_key="parameters"),
            begin="<|START_ACTION|>",
            listed=True,
            end="<|END_ACTION|>",
            separator=", ",
            ignored=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        ),
        Format(
            name="harmony",
            call=ChannelCall(before="<|channel|>commentary to=functions.", between=" <|constrain|>json<|message|>"),
            separator=None,
            also=(("<|channel|>", ""), ("<|start|>", "")),
        ),
        Format(
            name="kimi-k2",
            call=NamedCall(
                before="<|tool_call_begin|>",
                between="<|tool_call_argument_begin|>",
                after="<|tool_call_end|>",
                numbered=True,
            ),
            begin="<|tool_calls_section_begin|>",
            end="<|tool_calls_section_end|>",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class ReasoningMarks:
    """What begins a model's reasoning, and what ends it."""

    start: str
    end: str


REASONING = (
    ReasoningMarks("<think>", "</think>"),
    ReasoningMarks("[THINK]", "[/THINK]"),
    ReasoningMarks("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningMarks("<seed:think>", "</seed:think>"),
    ReasoningMarks("◁think▷", "◁/think▷"),
    ReasoningMarks("<|channel>thought", "<channel|>"),
)
