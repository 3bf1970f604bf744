"""How each model family writes tool calls: one table, used both to parse completions and to constrain them."""

from worker.output.family_format import (
    BracedCall,
    FamilyFormat,
    JsonCall,
    Messages,
    NamedCall,
    NestedCall,
    PythonCall,
    TaggedCall,
    TypedCall,
)

MINIMAX = "]<]minimax[>["
JSON_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")


def _dsml(name: str, section: str) -> FamilyFormat:
    """DeepSeek's markup. Its versions name the section of the calls differently."""
    call = TypedCall(
        before='<｜DSML｜invoke name="',
        name_after='">\n',
        key_before='<｜DSML｜parameter name="',
        type_before='" string="',
        types=tuple((type, "true" if type == "string" else "false") for type in JSON_TYPES),
        key_after='">',
        value_after="</｜DSML｜parameter>\n",
        after="</｜DSML｜invoke>\n",
    )
    begin, end = f"<｜DSML｜{section}>\n", f"</｜DSML｜{section}>"
    return FamilyFormat(name=name, call=call, begin=begin, end=end, in_reasoning=True)


FORMATS = {
    each.name: each
    for each in (
        FamilyFormat(
            name="json",
            call=JsonCall(),
            separator="\n",
            other_marks=(("<tool_call>", "</tool_call>"), ("```json", "```"), ("```tool_call", "```"), ("```", "```")),
            bare="{[",
            bare_anywhere=True,
        ),
        FamilyFormat(name="hermes", call=JsonCall(before="<tool_call>\n", after="\n</tool_call>"), separator="\n"),
        FamilyFormat(
            name="llama3-json",
            call=JsonCall(arguments_key="parameters"),
            separator="; ",
            other_marks=(("<|python_tag|>", ""),),
            bare="{",
        ),
        FamilyFormat(
            name="pythonic",
            call=PythonCall(),
            listed=True,
            separator=", ",
            other_marks=(("<|python_start|>", "<|python_end|>"), ("<|python_tag|>", "")),
            bare="[",
        ),
        FamilyFormat(
            name="lfm2",
            call=PythonCall(),
            begin="<|tool_call_start|>",
            listed=True,
            end="<|tool_call_end|>",
            separator=", ",
        ),
        FamilyFormat(name="gemma", call=PythonCall(), begin="```tool_code\n", end="\n```", separator="\n"),
        FamilyFormat(
            name="functiongemma",
            call=BracedCall(before="<start_function_call>call:", after="<end_function_call>", quote="<escape>"),
            results_mark="<start_function_response>",
        ),
        FamilyFormat(
            name="gemma-4",
            call=BracedCall(before="<|tool_call>call:", after="<tool_call|>", quote='<|"|>'),
            results_mark="<|tool_response>",
            ignored=("<|channel>thought\n<channel|>", "<channel|>"),
        ),
        FamilyFormat(name="mistral", call=JsonCall(), begin="[TOOL_CALLS]", listed=True, separator=", ", id_length=9),
        FamilyFormat(name="mistral-args", call=NamedCall(before="[TOOL_CALLS]", between="[ARGS]"), id_length=9),
        FamilyFormat(
            name="functionary-v3.2", call=NamedCall(before=">>>", between="\n"), ignored=(">>>all\n",), prompt_end=">>>"
        ),
        FamilyFormat(
            name="function-tag",
            call=NamedCall(before="<function=", between=">", after="</function>"),
            other_marks=(("<|python_tag|><function=", ""),),
        ),
        FamilyFormat(
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
        FamilyFormat(
            name="deepseek-v3.1",
            call=NamedCall(before="<｜tool▁call▁begin｜>", between="<｜tool▁sep｜>", after="<｜tool▁call▁end｜>"),
            begin="<｜tool▁calls▁begin｜>",
            end="<｜tool▁calls▁end｜>",
        ),
        _dsml("deepseek-v3.2", "function_calls"),
        _dsml("deepseek-v4", "tool_calls"),
        FamilyFormat(
            name="qwen-coder",
            call=TaggedCall(
                before="<tool_call>\n<function=",
                name_after=">\n",
                key_before="<parameter=",
                key_after=">\n",
                value_after="\n</parameter>\n",
                after="</function>\n</tool_call>",
            ),
            separator="\n",
            other_marks=(("<function=", ""),),
        ),
        FamilyFormat(
            name="seed-oss",
            call=TaggedCall(
                before="<seed:tool_call>\n<function=",
                name_after=">\n",
                key_before="<parameter=",
                key_after=">",
                value_after="</parameter>\n",
                after="</function>\n</seed:tool_call>",
            ),
            separator="\n",
        ),
        FamilyFormat(
            name="minimax-m2",
            call=TaggedCall(
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
        FamilyFormat(
            name="minimax-m3",
            call=NestedCall(
                mark=MINIMAX, before=f'{MINIMAX}<invoke name="', name_after='">', after=f"{MINIMAX}</invoke>\n"
            ),
            begin=f"{MINIMAX}<tool_call>\n",
            end=f"{MINIMAX}</tool_call>",
            ignored=("</mm:think>",),
            empty_text="</mm:think>",
        ),
        FamilyFormat(
            name="glm",
            call=TaggedCall(
                before="<tool_call>",
                name_after="\n",
                key_before="<arg_key>",
                key_after="</arg_key>\n<arg_value>",
                value_after="</arg_value>\n",
                after="</tool_call>",
            ),
            separator="\n",
        ),
        FamilyFormat(
            name="granite",
            call=JsonCall(),
            begin="<|tool_call|>",
            listed=True,
            separator=", ",
            other_marks=(("<tool_call>", "</tool_call>"),),
            ignored=("<|/tool_call|>",),
        ),
        FamilyFormat(
            name="nemotron", call=JsonCall(), begin="<TOOLCALL>", listed=True, end="</TOOLCALL>", separator=", "
        ),
        FamilyFormat(
            name="apriel",
            call=JsonCall(),
            begin="<tool_calls>",
            listed=True,
            end="</tool_calls>",
            separator=", ",
            ignored=("[END FINAL RESPONSE]",),
        ),
        FamilyFormat(name="minimax-m1", call=JsonCall(), begin="<tool_calls>\n", end="\n</tool_calls>", separator="\n"),
        FamilyFormat(name="firefunction", call=JsonCall(), begin="functools", listed=True, separator=", "),
        FamilyFormat(
            name="command-r",
            call=JsonCall(name_key="tool_name", arguments_key="parameters"),
            begin="Action:\n```json\n",
            listed=True,
            end="\n```",
            separator=", ",
        ),
        FamilyFormat(
            name="command-r7b",
            call=JsonCall(name_key="tool_name", arguments_key="parameters"),
            begin="<|START_ACTION|>",
            listed=True,
            end="<|END_ACTION|>",
            separator=", ",
            ignored=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        ),
        FamilyFormat(
            name="apertus",
            call=NamedCall(before='{"', between='": ', after="}"),
            begin="<|tools_prefix|>",
            listed=True,
            end="<|tools_suffix|>",
            separator=", ",
        ),
        FamilyFormat(
            name="gigachat-3",
            call=JsonCall(before="<|message_sep|>\n\nfunction call<|role_sep|>\n"),
            separator=None,
            end_of_turn="<|message_sep|>",
        ),
        FamilyFormat(
            name="gigachat-3.1",
            call=JsonCall(before="<|function_call|>"),
            separator=None,
            end_of_turn="<|message_sep|>",
        ),
        FamilyFormat(
            name="minicpm5",
            call=TaggedCall(
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
        FamilyFormat(
            name="hy3",
            call=TaggedCall(
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
        FamilyFormat(
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
        FamilyFormat(
            name="harmony",
            call=NamedCall(before="<|channel|>commentary to=functions.", between=" <|constrain|>json<|message|>"),
            messages=Messages(
                reasoning="<|channel|>analysis<|message|>",
                preamble="<|channel|>commentary<|message|>",
                answer="<|channel|>final<|message|>",
                end="<|end|>",
                next_start="<|start|>assistant",
                ends=("<|end|>", "<|return|>", "<|call|>"),
                starts=("<|start|>", "<|channel|>"),
            ),
            separator=None,
        ),
        FamilyFormat(
            name="muse-glimmer",
            call=TaggedCall(
                before='<atem:function_calls>\n<atem:invoke name="',
                name_after='">\n',
                key_before='<atem:parameter name="',
                key_after='">',
                value_after="</atem:parameter>\n",
                after="</atem:invoke>\n</atem:function_calls>",
            ),
            messages=Messages(
                reasoning=" to=self<|message|>",
                preamble=" to=user<|message|>",
                answer=" to=user<|message|>",
                call=" to={}<|message|>",
                end="<|eom|>",
                next_start="<|start|>assistant",
                ends=("<|eom|>", "<|eot|>"),
                starts=("<|start|>",),
            ),
            separator="<|eom|><|start|>assistant",
            prompt_end="<|start|>assistant",
            end_of_turn="<|eot|>",
        ),
        FamilyFormat(
            name="kimi-k3",
            call=TypedCall(
                before='<|open|>call tool="',
                number_before='" index="',
                name_after='"<|sep|>',
                key_before='<|open|>argument key="',
                type_before='" type="',
                types=tuple((type, "number" if type == "integer" else type) for type in JSON_TYPES),
                key_after='"<|sep|>',
                value_after="<|close|>argument<|sep|>",
                after="<|close|>call<|sep|>",
            ),
            begin="<|open|>tools<|sep|>",
            end="<|close|>tools<|sep|>",
            ignored=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
            empty_text="<|open|>response<|sep|><|close|>response<|sep|>",
            prompt_end="<|open|>response<|sep|>",
            end_of_turn="<|close|>message<|sep|>",
        ),
        FamilyFormat(
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
