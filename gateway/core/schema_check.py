"""Checks a tool's output against its schema, with bounded work. Pure.

Schema and output both come from the tool's server. A pattern that backtracks, or references that multiply, must not
occupy the gateway. Patterns are not matched, and a check that exceeds a fixed number of steps is given up.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import create
from referencing import Registry

MOST_STEPS = 10_000  # keywords checked for one output: about 200 ms
# Python's regular expressions have no time limit; the others compare values pairwise.
NOT_TRIED = frozenset({"pattern", "patternProperties", "uniqueItems", "unevaluatedItems", "unevaluatedProperties"})
LONGEST_REASON = 300  # characters

Keyword = Callable[[Validator, Any, Any, Mapping[str, Any]], Iterator[ValidationError]]
"""Checks an instance by one keyword: validator, the keyword's value, instance, the schema around it."""


class _TooMuch(Exception):
    pass


def disagreement(schema: Mapping[str, object], value: object) -> str | None:
    """How the value violates the schema; None: it does not, or the check was given up."""
    steps = 0

    def counted(keyword: Keyword) -> Keyword:
        def check(
            validator: Validator, expected: object, instance: object, within: Mapping[str, object]
        ) -> Iterator[ValidationError]:
            nonlocal steps
            steps += 1
            if steps > MOST_STEPS:
                raise _TooMuch
            yield from keyword(validator, expected, instance, within) or ()

        return check

    keywords: dict[str, Keyword] = {
        name: counted(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items() if name not in NOT_TRIED
    }
    keywords |= dict.fromkeys(NOT_TRIED, counted(lambda *_: iter(())))
    keywords["additionalProperties"] = counted(_additional)
    # With an empty registry, since the library would otherwise fetch references by URL.
    kind = create(Draft202012Validator.META_SCHEMA, keywords)
    try:
        validator = kind(_in_one_dialect(schema), registry=Registry())
        error = next(validator.iter_errors(value), None)
    except Exception:  # an invalid schema, a dangling reference, too deep or too many steps
        return None
    return None if error is None else f"{error.json_path[:LONGEST_REASON]}: {error.message[:LONGEST_REASON]}"


def _additional(
    validator: Validator, expected: object, instance: object, within: Mapping[str, object]
) -> Iterator[ValidationError]:
    """Ignored beside `patternProperties`, whose patterns the library would match to find the additional properties."""
    if within.get("patternProperties"):
        return iter(())
    additional: Keyword = Draft202012Validator.VALIDATORS["additionalProperties"]
    return additional(validator, expected, instance, within)


def _in_one_dialect(schema: object) -> Any:
    """Without `$schema`, which would make the library choose its own keywords."""
    if isinstance(schema, Mapping):
        return {key: _in_one_dialect(value) for key, value in schema.items() if key != "$schema"}
    return [_in_one_dialect(value) for value in schema] if isinstance(schema, list) else schema
