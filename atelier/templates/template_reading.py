"""What a chat template reads, according to its syntax tree: templates use different names for the same thing."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jinja2 import meta, nodes

CALLS = "tool_calls"
IDS = ("id", "tool_call_id")


@dataclass(frozen=True, slots=True)
class TemplateReading:
    """`compared`: texts that a name is compared with. `demanded`: texts of which it must be one.

    `constants`: the texts in its expressions, such as those that it looks for in messages. `written`: all others.
    """

    variables: frozenset[str]  # undeclared: the caller provides them
    names: frozenset[str]  # of attributes and keys, of any object
    compared: Mapping[str, frozenset[str]]
    demanded: Mapping[str, frozenset[str]]
    id_length: int  # required length of tool call ids; 0: any
    first_call_only: bool  # it reads only the first tool call of a message
    constants: frozenset[str]
    written: frozenset[str]


def read_template(tree: nodes.Template) -> TemplateReading:
    compared: dict[str, frozenset[str]] = defaultdict(frozenset)
    demanded: dict[str, frozenset[str]] = {}
    length = 0
    for comparison in tree.find_all(nodes.Compare):
        length = _id_length(comparison) or length
        name = _name(comparison.expr)
        for operand in comparison.ops:
            texts = frozenset(_texts(operand.expr))
            if name and texts:
                compared[name] |= texts
                if operand.op == "notin":
                    demanded[name] = texts
    return TemplateReading(
        frozenset(meta.find_undeclared_variables(tree)),
        frozenset(_read_names(tree)),
        dict(compared),
        demanded,
        length,
        _first_call_only(tree),
        frozenset(constant.value for constant in tree.find_all(nodes.Const) if isinstance(constant.value, str)),
        frozenset(data.data for data in tree.find_all(nodes.TemplateData)),
    )


def _name(expression: nodes.Node) -> str:
    """The name of a variable, attribute or key (also in `x.get('key')`); "" for any other expression."""
    match expression:
        case nodes.Name(name=str(name)) | nodes.Getattr(attr=str(name)):
            return name
        case nodes.Getitem(arg=nodes.Const(value=str(name))):
            return name
        case nodes.Call(node=nodes.Getattr(attr="get"), args=[nodes.Const(value=str(name)), *_]):
            return name
        case nodes.Filter(node=nodes.Node() as filtered, name="lower" | "trim" | "string" | "default"):
            return _name(filtered)
    return ""


def _read_names(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Call)):
        if name := _name(node):
            yield name


def _texts(expression: nodes.Node) -> Iterator[str]:
    match expression:
        case nodes.Const(value=str(text)):
            yield text
        case nodes.List(items=items) | nodes.Tuple(items=items):
            for item in items:
                yield from _texts(item)


def _id_length(comparison: nodes.Compare) -> int:
    """The 9 of `call.id | length != 9`; 0 for any other comparison."""
    match comparison:
        case nodes.Compare(
            expr=nodes.Filter(name="length" | "count", node=nodes.Node() as measured),
            ops=[nodes.Operand(op="ne" | "eq", expr=nodes.Const(value=int(length)))],
        ) if _name(measured) in IDS:
            return length
    return 0


def _first_call_only(tree: nodes.Template) -> bool:
    firsts = (
        node
        for node in tree.find_all(nodes.Getitem)
        if _name(node.node) == CALLS and isinstance(node.arg, nodes.Const) and node.arg.value == 0
    )
    return any(firsts) and not any(_name(loop.iter) == CALLS for loop in tree.find_all(nodes.For))
