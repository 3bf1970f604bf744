"""GBNF translated to Lark: what the translation accepts, by llguidance itself."""

import pytest
from llguidance import LLMatcher

from tests.support.worker.byte_vocabulary import byte_tokenizer
from worker.engine.constraint.gbnf_parser import DEEPEST_GROUP, MOST_RULES, GbnfError
from worker.engine.constraint.gbnf_to_lark import gbnf_to_lark

TOKENIZER = byte_tokenizer()


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(gbnf_to_lark(grammar)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws  # with escapes
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("grammar", "matching", "other"),
    [
        (JSON, '{"a": [1, -2.5e3, null, "x\\n\\u00e9"], "b": {}}', '{"a": }'),
        (r'root ::= "\u00e9" "\x41" [\u00e0-\u00ff] "\U0001F600"', "éAÿ😀", "eAÿ😀"),
        ("root ::= . .", "\n😀", "x"),
        ("root ::= [a&&b] [c~~d] [+--]", "&~,", "e~,"),
        (r'root ::= [^"\\]+ "\""', 'a\nb"', 'a\\b"'),
        ("root ::= [a-]+", "a-a-", "b"),
        (r'root ::= [\]\[/^$] "a/b.*"', "]a/b.*", "]a/bcc"),
        ('root ::= foo-bar foo_bar FOO-BAR\nfoo-bar ::= "a"\nfoo_bar ::= "b"\nFOO-BAR ::= "c"', "abc", "aaa"),
        ('root ::= start 1st\nstart ::= "a"\n1st ::= "b"', "ab", "a"),
        ('root ::= "(" root ")" | "x"', "((x))", "((x)"),
        ('root ::= "a" ("b" | ) "c"', "ac", "ab"),
        ('root ::= [a-z]+ "a"', "bba", "bbb"),
        ('root ::= words "." root | words "!"\nwords ::= [a-z]+ "a" [0-9]?', "aa.ba1!", "a!"),
        ('root ::= ("a" | "b"){2,3} "c"*', "abbcc", "acc"),
        ('root ::= "a"{2} "b"{1,}', "aabbb", "abb"),
        ('root ::= # a comment\n  "a" |\n  "b"\n\n# another\n', "b", "ab"),
        ('root ::= "a"\nunused ::= "b" unused', "a", "b"),
        ('root ::= "x"\nroot ::= "a"', "a", "x"),
        ("root ::= [^] [a]", "xa", "xb"),
    ],
)
def test_a_grammar_accepts_exactly_its_language(grammar: str, matching: str, other: str) -> None:
    assert accepts(grammar, matching)
    assert not accepts(grammar, other)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("", 'no rule "root"'),
        ('foo ::= "a"', 'no rule "root"'),
        ("root ::= foo", 'no rule "foo"'),
        ('root ::= "a', "line 1"),
        ('root ::= "a"\n\nx ::= [a', "line 3"),
        ('root ::= ("a"', "missing"),
        ('root ::= "a")', "expected"),
        ("root ::= *", "nothing to repeat"),
        ('root ::= "a"' + "*" * 50_000, "nothing to repeat"),
        ("root ::= [z-a]", "ends before it begins"),
        (r'root ::= "\q"', "not an escape sequence"),
        (r'root ::= "\U00110000"', "not a code point"),
        (r'root ::= "\uD800"', "not a code point"),
        ('root ::= "a"{1,100000000}', "repeats more than"),
        ('root ::= "a"{' + "9" * 5000 + "}", "repeats more than"),
        ("root ::= " + "(" * (DEEPEST_GROUP + 1) + '"a"' + ")" * (DEEPEST_GROUP + 1), "nested deeper"),
        ("\n".join(f'r{i} ::= "a"' for i in range(MOST_RULES + 1)), "rules"),
    ],
)
def test_a_grammar_error_is_named(grammar: str, reason: str) -> None:
    with pytest.raises(GbnfError, match=reason):
        gbnf_to_lark(grammar)


def test_nesting_up_to_the_limit_is_accepted() -> None:
    assert accepts("root ::= " + "(" * DEEPEST_GROUP + '"a"' + ")" * DEEPEST_GROUP, "a")
