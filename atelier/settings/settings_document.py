"""`python -m atelier.settings.settings_document` writes docs/settings.md from the declarations."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from atelier.config import Config
from atelier.settings.declare import Facts
from atelier.settings.groups import Inference
from atelier.settings.resolution import Layer, resolve
from atelier.settings.settings_table import TABLE, Group, Setting

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

SERVER = """\
# Settings

This page is generated: change a setting where it is declared (`atelier/config.py`, `atelier/settings/groups.py`),
then run `python -m atelier.settings.settings_document`.

## The server's

Each is an environment variable, read when a process starts. `atelier serve` takes most of them as options too
(`ATELIER_PORT` is `--port`); an option wins over its variable. Lists have commas between their entries.
"""
OVERRIDES = """\
## What overrides what

Every setting of a request is resolved by itself. The first of these that sets it wins:

1. the **request**;
2. the **preset that the request names** (`"preset": "precise"`);
3. the **instance's own**: the preset that it was loaded with (`atelier load MODEL --preset NAME`), as that was then;
4. the **model's default preset** (`atelier presets default MODEL NAME`);
5. the **model's file** (`general.sampling.*`);
6. the **built-in default** given below.

Load settings are taken when an instance starts, from the load request, the preset named there, the default preset and
the model's file, in this order; no request changes them on an instance that runs. A chat with a system message of its
own keeps to that, whatever a preset says.

A preset is a named set of settings of all three groups, kept version by version:

    atelier presets set precise temperature=0.2 top_p=0.9 parallel=4     # make one, or change some of it
    atelier presets diff precise --version 1                             # what has changed since
    atelier presets import precise.preset.json                           # LM Studio's, or one exported here
    atelier presets default smollm2-135m-instruct precise
    atelier settings smollm2-135m-instruct --preset precise              # what holds, and where it comes from

`GET /api/v1/models/MODEL/settings` answers the same as JSON, and a request with the header `x-atelier-settings: echo`
has what held for it in the reply's header of that name.

Say a request sets `max_tokens` to 100 and names the preset `precise`; the model's default preset is `lab`, and its file
recommends a temperature. It comes to:
"""
EXAMPLE = (
    Layer("request", {"max_tokens": 100}),
    Layer("preset precise", {"temperature": 0.2, "top_p": 0.9}),
    Layer("default preset lab", {"temperature": 0.6, "min_p": 0.1}),
    Layer("model file", {"temperature": 0.7, "top_k": 20}),
)
EXAMPLE_SETTINGS = ("max_tokens", "temperature", "top_p", "min_p", "top_k", "repeat_penalty")
EXAMPLE_TITLES = ("Setting", "Value", "Origin")
GROUPS: dict[Group, str] = {
    "load": """\
## Load

Fixed when an instance starts: flags of `atelier load`, fields of `POST /api/v1/models/load`.
(`--gpu off|max|LAYERS|SHARE` sets `gpu_layers`.)
""",
    "prompt": """\
## Prompt

How messages become a prompt, and where a completion ends.
""",
    "inference": """\
## Inference

How one request samples.
""",
}
SERVER_TITLES = ("Variable", "Default", "What it is")
SETTING_TITLES = ("Setting", "OpenAI", "LM Studio", "Default", "Allowed", "What it is")


def page() -> str:
    """The whole page, as Markdown."""
    server = table(SERVER_TITLES, (server_row(name, field) for name, field in Config.model_fields.items()))
    groups = (text + "\n" + table(SETTING_TITLES, map(setting_row, served(group))) for group, text in GROUPS.items())
    return "\n".join([SERVER, server, OVERRIDES, table(EXAMPLE_TITLES, example_rows()), *groups])


def example_rows() -> list[list[str]]:
    values = resolve(Inference, EXAMPLE).values
    return [[code(name), code(values[name].value), values[name].origin] for name in EXAMPLE_SETTINGS]


def served(group: Group) -> list[Setting]:
    """The settings that a client can set: all, as every one can be in a preset."""
    return list(TABLE[group].values())


def server_row(name: str, field: FieldInfo) -> list[str]:
    return [code(f"ATELIER_{name.upper()}"), default(field.default), field.description or choices(field)]


def setting_row(row: Setting) -> list[str]:
    facts = row.facts
    return [
        code(row.name),
        code(facts.openai),
        code(facts.lmstudio),
        default(row.default),
        allowed(row),
        facts.description,
    ]


def allowed(row: Setting) -> str:
    facts = row.facts
    most = f"at most {facts.max_items} entries" if facts.max_items is not None else ""
    return ", ".join([*map(code, facts.choices), *filter(None, [code(facts.form), bounds(facts), most])])


def bounds(facts: Facts) -> str:
    """Both bounds and the unit: "1 to 256 sequences"."""
    low, high = (f"{bound:.10g}" if bound is not None else "" for bound in (facts.minimum, facts.maximum))
    span = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""
    return f"{span} {facts.unit}".strip() if span else ""


def choices(field: FieldInfo) -> str:
    given = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"One of {', '.join(map(code, given))}." if given else ""


def default(value: Any) -> str:
    """A default in words; "" for what is unset."""
    if value in (None, "", [], {}):
        return ""
    return code(("off", "on")[value] if isinstance(value, bool) else value)


def code(value: object) -> str:
    return f"`{value}`" if value != "" else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, ending in a line break."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
