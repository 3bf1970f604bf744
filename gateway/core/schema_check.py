"""Whether a tool's answer is what its schema says, with bounded work. Pure.

The schema and the answer are both a server's: a pattern or a web of references that takes for ever must cost nobody
but that server. Patterns are not tried, and what takes more than a fixed number of steps counts as unknown.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import create
from referencing import Registry

MOST_STEPS = 10_000  # keywords that are looked at for one answer: some 200 ms
# Python's expressions know no time limit; the others look at one another's values again and again.
NOT_TRIED = frozenset({"pattern", "patternProperties", "uniqueItems", "unevaluatedItems", "unevaluatedProperties"})
LONGEST_REASON = 300  # characters

Keyword = Callable[[Any, Any, Any, Any], Any]


class _TooMuch(Exception):
    pass


def disagreement(schema: Mapping[str, Any], value: object) -> str | None:
    """What is wrong with a value by its schema; None: nothing, or it cannot be told."""
    steps = 0

    def counted(keyword: Keyword) -> Keyword:
        def check(validator: Any, expected: Any, instance: Any, within: Any) -> Iterator[Any]:
            nonlocal steps
            steps += 1
            if steps > MOST_STEPS:
                raise _TooMuch
            yield from keyword(validator, expected, instance, within) or ()

        return check

    keywords: dict[str, Any] = {
        name: counted(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items() if name not in NOT_TRIED
    }
    keywords |= dict.fromkeys(NOT_TRIED, counted(lambda *_: ()))
    keywords["additionalProperties"] = counted(_additional)
    # The empty registry: the library would otherwise fetch what references name.
    kind = create(Draft202012Validator.META_SCHEMA, keywords)
    try:
        validator = kind(_in_one_dialect(schema), registry=Registry())
        error = next(validator.iter_errors(value), None)
    except Exception:  # a schema that is none, a reference that leads nowhere, too deep, too much
        return None
    return None if error is None else f"{error.json_path[:LONGEST_REASON]}: {error.message[:LONGEST_REASON]}"


def _additional(validator: Any, expected: Any, instance: Any, within: Any) -> Any:
    """Which properties are additional, the library would find by the patterns of the schema's `patternProperties`."""
    if within.get("patternProperties"):
        return ()
    return Draft202012Validator.VALIDATORS["additionalProperties"](validator, expected, instance, within)


def _in_one_dialect(schema: Any) -> Any:
    """Without `$schema`, by which the library would choose other keywords than ours."""
    if isinstance(schema, Mapping):
        return {key: _in_one_dialect(value) for key, value in schema.items() if key != "$schema"}
    return [_in_one_dialect(value) for value in schema] if isinstance(schema, list) else schema
