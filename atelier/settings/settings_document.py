"""`python -m atelier.settings.settings_document` writes docs/settings.md from the declarations."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from atelier.config import Config
from atelier.settings.declaration import SettingFacts
from atelier.settings.groups import Inference
from atelier.settings.resolution import Layer, resolve
from atelier.settings.settings_table import TABLE, Group, Setting

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

SERVER = """\
# Settings

This page is generated. To change a setting, edit its declaration (`atelier/config.py`, `atelier/settings/groups.py`),
then run `python -m atelier.settings.settings_document`.

## Server

Each option is an environment variable, read when a process starts. Most are options of `atelier serve` too
(`ATELIER_PORT` is `--port`); an option overrides its variable. The entries of a list are separated by commas.
"""
OVERRIDES = """\
## Precedence

Every setting of a request is resolved separately. The first of these that sets it applies:

1. the **request**;
2. the **preset that the request names** (`"preset": "precise"`);
3. the **instance's own** settings: those of the preset it was loaded with (`atelier load MODEL --preset NAME`), in the
   version of that time;
4. the **model's default preset** (`atelier presets default MODEL NAME`);
5. the **model's file** (`general.sampling.*`);
6. the **built-in default** given below.

Load settings are fixed when an instance starts: they come from the load request, the preset that it names, the default
preset and the model's file, in this order. No request changes them on a running instance. A system message in a chat
replaces the system prompt of any preset.

A preset is a named set of settings of all three groups. Its earlier versions are kept:

    atelier presets set precise temperature=0.2 top_p=0.9 parallel=4     # create a preset, or change some settings
    atelier presets diff precise --version 1                             # what has changed since version 1
    atelier presets import precise.preset.json                           # LM Studio's, or one exported here
    atelier presets default smollm2-135m-instruct precise
    atelier settings smollm2-135m-instruct --preset precise              # the settings that apply, and their origins

`GET /api/v1/models/MODEL/settings` returns the same as JSON. A request with the header `x-atelier-settings: echo`
gets the settings that applied to it in the reply's header of that name.

For example, a request sets `max_tokens` to 100 and names the preset `precise`; the model's default preset is `lab`, and
its file recommends a temperature. The result:
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

Fixed when an instance starts: flags of `atelier load` (`--gpu off|max|LAYERS|SHARE` sets `gpu_layers`), and fields of
`POST /api/v1/models/load`.
""",
    "prompt": """\
## Prompt

How messages become a prompt, and where a completion ends.
""",
    "inference": """\
## Inference

How a request samples.
""",
}
SERVER_TITLES = ("Variable", "Default", "Description")
SETTING_TITLES = ("Setting", "OpenAI", "LM Studio", "Default", "Allowed", "Description")


def page() -> str:
    """The whole page, as Markdown."""
    server = table(SERVER_TITLES, (server_row(name, field) for name, field in Config.model_fields.items()))
    groups = (text + "\n" + table(SETTING_TITLES, map(setting_row, served(group))) for group, text in GROUPS.items())
    return "\n".join([SERVER, server, OVERRIDES, table(EXAMPLE_TITLES, example_rows()), *groups])


def example_rows() -> list[list[str]]:
    values = resolve(Inference, EXAMPLE).values
    return [[code(name), code(values[name].value), values[name].origin] for name in EXAMPLE_SETTINGS]


def served(group: Group) -> list[Setting]:
    """The settings that a client can set: all of them, as every setting may be in a preset."""
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


def bounds(facts: SettingFacts) -> str:
    """Both bounds and the unit: "1 to 256 sequences"."""
    low, high = (f"{bound:.10g}" if bound is not None else "" for bound in (facts.minimum, facts.maximum))
    span = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""
    return f"{span} {facts.unit}".strip() if span else ""


def choices(field: FieldInfo) -> str:
    given = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"One of {', '.join(map(code, given))}." if given else ""


def default(value: object) -> str:
    """A default as text; "" for an unset one."""
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
