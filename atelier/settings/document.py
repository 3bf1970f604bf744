"""`python -m atelier.settings.document` writes docs/settings.md from the declarations."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from atelier.config import Config
from atelier.settings.declare import Facts
from atelier.settings.table import TABLE, Group, Setting

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

SERVER = """\
# Settings

This page is generated: change a setting where it is declared (`atelier/config.py`, `atelier/settings/groups.py`),
then run `python -m atelier.settings.document`.

## The server's

Each is an environment variable, read when a process starts. `atelier serve` takes most of them as options too
(`ATELIER_PORT` is `--port`); an option wins over its variable. Lists have commas between their entries.
"""
GROUPS: dict[Group, str] = {
    "load": """\
## Load

Fixed when an instance starts: flags of `atelier load`, fields of `POST /api/v1/models/load`.
(`--gpu off|max|LAYERS|SHARE` sets `gpu_layers`.)
""",
    "prompt": """\
## Prompt

Where a completion ends.
""",
    "inference": """\
## Inference

How one request samples. Highest first: the request, the model's file (`general.sampling.*`), the default given here.
""",
}
SERVER_TITLES = ("Variable", "Default", "What it is")
SETTING_TITLES = ("Setting", "OpenAI", "LM Studio", "Default", "Allowed", "What it is")


def page() -> str:
    """The whole page, as Markdown."""
    server = table(SERVER_TITLES, (server_row(name, field) for name, field in Config.model_fields.items()))
    groups = (text + "\n" + table(SETTING_TITLES, map(setting_row, served(group))) for group, text in GROUPS.items())
    return "\n".join([SERVER, server, *groups])


def served(group: Group) -> list[Setting]:
    """The settings that a client can set: those that have a name in some dialect."""
    return [row for row in TABLE[group].values() if row.facts.openai or row.facts.lmstudio]


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
