"""How model families write tool calls: one table, for reading them and for constraining what is written."""

from worker.output.forms import (
    BracedCall,
    ChannelCall,
    Format,
    JsonCall,
    MarkedCall,
    NamedCall,
    NestedCall,
    PythonCall,
    ReasoningMarks,
    TypedCall,
)

MINIMAX = "]<]minimax[>["
KINDS = ("string", "integer", "number", "boolean", "null", "array", "object")


def _dsml(name: str, section: str) -> Format:
    """DeepSeek's markup; the versions call the section of the calls by different names."""
    call = TypedCall(
        before='<｜DSML｜invoke name="',
        name_after='">\n',
        key_before='<｜DSML｜parameter name="',
        type_before='" string="',
        types=tuple((kind, "true" if kind == "string" else "false") for kind in KINDS),
        key_after='">',
        value_after="</｜DSML｜parameter>\n",
        after="</｜DSML｜invoke>\n",
    )
    begin, end = f"<｜DSML｜{section}>\n", f"</｜DSML｜{section}>"
    return Format(name=name, call=call, begin=begin, end=end, in_reasoning=True)


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
        _dsml("deepseek-v3.2", "function_calls"),
        _dsml("deepseek-v4", "tool_calls"),
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
            name="minimax-m3",
            call=NestedCall(
                mark=MINIMAX,
                before=f'{MINIMAX}<invoke name="',
                name_after='">',
                after=f"{MINIMAX}</invoke>\n",
            ),
            begin=f"{MINIMAX}<tool_call>\n",
            end=f"{MINIMAX}</tool_call>",
            ignored=("</mm:think>",),
            unsaid="</mm:think>",
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
            ignored=("[END FINAL RESPONSE]",),
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
            name="apertus",
            call=NamedCall(before='{"', between='": ', after="}"),
            begin="<|tools_prefix|>",
            listed=True,
            end="<|tools_suffix|>",
            separator=", ",
        ),
        Format(
            name="gigachat-3",
            call=JsonCall(before="<|message_sep|>\n\nfunction call<|role_sep|>\n"),
            separator=None,
            last="<|message_sep|>",
        ),
        Format(
            name="gigachat-3.1",
            call=JsonCall(before="<|function_call|>"),
            separator=None,
            last="<|message_sep|>",
        ),
        Format(
            name="minicpm5",
            call=MarkedCall(
                before='<function name="',
                name_after='">',
                key_before='<param name="',
                key_after='">',
                raw=("<![CDATA[", "]]>"),
                value_after="</param>",
                after="</function>",
            ),
            separator="\n",
        ),
        Format(
            name="hy3",
            call=MarkedCall(
                before="<tool_call:opensource>",
                name_after="<tool_sep:opensource>\n",
                key_before="<arg_key:opensource>",
                key_after="</arg_key:opensource>\n<arg_value:opensource>",
                value_after="</arg_value:opensource>\n",
                after="</tool_call:opensource>\n",
            ),
            begin="<tool_calls:opensource>\n",
            end="</tool_calls:opensource>",
        ),
        Format(
            name="solar-open",
            call=NamedCall(
                before="<|tool_call:begin|>",
                id_after="<|tool_call:name|>",
                between="<|tool_call:args|>",
                after="<|tool_call:end|>",
            ),
            begin="<|tool_calls|>",
            end="<|calls|>",
            ignored=("<|begin|>assistant", "<|content|>", "<|end|>"),
        ),
        Format(
            name="harmony",
            call=ChannelCall(before="<|channel|>commentary to=functions.", between=" <|constrain|>json<|message|>"),
            separator=None,
            also=(("<|channel|>", ""), ("<|start|>", "")),
        ),
        Format(
            name="kimi-k3",
            call=TypedCall(
                before='<|open|>call tool="',
                number_before='" index="',
                name_after='"<|sep|>',
                key_before='<|open|>argument key="',
                type_before='" type="',
                types=tuple((kind, "number" if kind == "integer" else kind) for kind in KINDS),
                key_after='"<|sep|>',
                value_after="<|close|>argument<|sep|>",
                after="<|close|>call<|sep|>",
            ),
            begin="<|open|>tools<|sep|>",
            end="<|close|>tools<|sep|>",
            ignored=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
            unsaid="<|open|>response<|sep|><|close|>response<|sep|>",
            prompted="<|open|>response<|sep|>",
            last="<|close|>message<|sep|>",
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

SOLAR = ReasoningMarks("<|think|>", "<|end|><|begin|>assistant")
KIMI_K3 = ReasoningMarks("<|open|>think<|sep|>", "<|close|>think<|sep|>")
HY3 = ReasoningMarks("<think:opensource>", "</think:opensource>")
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
    SOLAR,
    KIMI_K3,
)
