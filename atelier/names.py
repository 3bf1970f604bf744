"""Names of models and instances: their syntax, and what a name refers to.

A model's key is `publisher/name`, or `publisher/name@variant` when several files share the name.
Its instances are `key`, `key:2`, `key:3`, or have identifiers that the operator chose.
"""

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from atelier.errors import InvalidRequest, ModelNotFound

PART = r"[A-Za-z0-9](?:[A-Za-z0-9._+-]*[A-Za-z0-9])?"
KEY = re.compile(rf"{PART}/{PART}(?:@{PART})?")
IDENTIFIER = re.compile(rf"{PART}(?:/{PART})?(?:@{PART})?(?::{PART})?")
LONGEST_NAME = 200  # characters
PRESET_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+-]*[A-Za-z0-9._+-])?")
LONGEST_PRESET_NAME = 64  # characters
MOST_REPLICAS = 64  # instances of one model


@dataclass(frozen=True, slots=True)
class ModelName:
    """The name of a model: any of its instances may serve the request."""

    key: str


@dataclass(frozen=True, slots=True)
class InstanceName:
    """The name of an instance, which serves the request itself."""

    id: str


def check_key(key: str) -> str:
    """The key itself. Raises InvalidRequest when it is not well formed."""
    if len(key) > LONGEST_NAME or not KEY.fullmatch(key):
        raise InvalidRequest('A model key is "publisher/name"; it consists of letters, digits and . _ + -', param="key")
    return key


def check_identifier(identifier: str) -> str:
    """The identifier itself. Raises InvalidRequest when it is not well formed."""
    if len(identifier) > LONGEST_NAME or not IDENTIFIER.fullmatch(identifier):
        raise InvalidRequest("An identifier consists of letters, digits and . _ + - / @ :", param="identifier")
    return identifier


def check_preset_name(name: str) -> str:
    """The name itself. Raises InvalidRequest when it is not well formed."""
    if len(name) > LONGEST_PRESET_NAME or not PRESET_NAME.fullmatch(name):
        raise InvalidRequest(
            f"A preset's name consists of at most {LONGEST_PRESET_NAME} letters, digits, spaces and . _ + -",
            param="name",
        )
    return name


def find_name(name: str, keys: Collection[str], instance_ids: Collection[str]) -> ModelName | InstanceName:
    """What `name` refers to. Raises ModelNotFound, with near names, when it is unknown or ambiguous.

    In this order: a key, an instance id, a short form of one key (without publisher or variant, in any case), a short
    form of one instance id.
    """
    if name in keys:
        return ModelName(name)
    if name in instance_ids:
        return InstanceName(name)
    if len(matches := _short_matches(name, keys)) == 1:
        return ModelName(matches[0])
    if len(instances := _short_matches(name, instance_ids)) == 1 and not matches:
        return InstanceName(instances[0])
    if matches:
        raise ModelNotFound(f'"{_shown(name)}" could be any of: {", ".join(sorted(matches))}.', param="model")
    raise ModelNotFound(_not_found(name, [*keys, *instance_ids]), param="model")


def may_mean(name: str, key: str) -> bool:
    """Whether `name` is this key or a short form of it."""
    return name.lower() in _short_forms(key.lower())


def numbered_id(key: str, taken: Collection[str]) -> str:
    """The first free instance id of a model: `key`, `key:2`, `key:3`, ..."""
    number = 1
    while (candidate := key if number == 1 else f"{key}:{number}") in taken:
        number += 1
    return candidate


def _short_matches(name: str, candidates: Iterable[str]) -> list[str]:
    wanted = name.lower()
    return [candidate for candidate in candidates if wanted in _short_forms(candidate.lower())]


def _short_forms(name: str) -> set[str]:
    """The short forms of `a/b@q4:2`: itself, `b@q4:2`, `a/b:2`, `b:2`."""
    base, colon, number = name.partition(":")
    without_variant = base.partition("@")[0]
    bases = {base, without_variant, base.rpartition("/")[2], without_variant.rpartition("/")[2]}
    return {form + colon + number for form in bases}


def _not_found(name: str, known: list[str]) -> str:
    if hint := near_hint(name, known):
        return f'There is no model "{_shown(name)}".{hint}'
    if known:
        return f'There is no model "{_shown(name)}". GET /v1/models lists the models.'
    return f'There is no model "{_shown(name)}": no model is imported yet. Import one with: atelier import FILE'


def near_hint(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: " Near names: a, b.", or ""."""
    near = near_names(name, known)
    return f" Near names: {', '.join(near)}." if near else ""


def near_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known names most similar to `name`, in whole or in their beginning; the most similar first."""
    wanted = name[:LONGEST_NAME].lower()
    by_form: dict[str, list[str]] = {}
    for candidate in known:
        for form in _short_forms(candidate.lower()):
            for compared in {form, form[: len(wanted)]}:
                by_form.setdefault(compared, []).append(candidate)
    close = difflib.get_close_matches(wanted, by_form, n=limit * 4, cutoff=0.6)
    return list(dict.fromkeys(candidate for form in close for candidate in by_form[form]))[:limit]


def _shown(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
