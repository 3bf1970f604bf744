"""`presets` and `settings`: named sets of settings, and the settings that apply to a model."""

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode

import typer

from atelier.cli.output import AsJSON, Column, Failure, ModelKey, printable, remark, show_json, show_listing
from atelier.cli.rest_client import Server
from atelier.json_types import Json
from atelier.names import near_hint
from atelier.settings.settings_table import TABLE

LONGEST_SHOWN = 60  # characters of a value in a table
PATH = "/api/v1/presets"

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a preset, as `atelier presets` lists it.")]
Version = Annotated[int | None, typer.Option(help="An earlier version of the preset.")]

KNOWN = (Column("NAME"), Column("VERSION", right=True), Column("MODEL"), Column("SETTINGS"))
SETTINGS = (Column("SETTING"), Column("VALUE"), Column("ORIGIN"))
DIFFERENCES = (Column("SETTING"), Column("BEFORE"), Column("AFTER"))

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="List the presets; show, change, compare, import or export one."
)


@app.callback(invoke_without_command=True)
def presets(context: typer.Context, as_json: AsJSON = False) -> None:
    if context.invoked_subcommand is not None:
        return
    with Server.from_environment() as server:
        reply = server.get(PATH)
    if as_json:
        show_json(reply)
    elif reply["presets"]:
        show_listing(KNOWN, [_known_row(preset) for preset in reply["presets"]])
    else:
        remark("No presets yet. Create one with: atelier presets set NAME temperature=0.2")


@app.command(help="Show a preset's settings.")
def show(name: Name, version: Version = None, as_json: AsJSON = False) -> None:
    query = f"?{urlencode({'version': version})}" if version is not None else ""
    with Server.from_environment() as server:
        preset = server.get(_path(name) + query)
    if as_json:
        show_json(preset)
        return
    rows = [[f"{group}.{key}", _shown(value)] for group, key, value in _entries(preset)]
    show_listing((Column(f"{preset['name']} v{preset['version']}"), Column("VALUE")), rows)


@app.command("set", help="Create a preset, or change its settings.")
def set_values(
    name: Name,
    values: Annotated[
        list[str],
        typer.Argument(metavar="SETTING=VALUE...", help="Such as temperature=0.2; @FILE: the text of a file."),
    ],
    model: Annotated[str | None, typer.Option(help="Key of the only model it applies to.")] = None,
    as_json: AsJSON = False,
) -> None:
    changes: Json = _changes(values)
    if model is not None:
        changes["model"] = model
    with Server.from_environment() as server:
        known = {preset["name"] for preset in server.get(PATH)["presets"]}
        preset = server.send("PATCH" if name in known else "PUT", _path(name), changes)
    _say(preset, f"{preset['name']} is now version {preset['version']}.", as_json=as_json)


@app.command(help="Remove settings from a preset.")
def unset(
    name: Name,
    settings: Annotated[list[str], typer.Argument(metavar="SETTING...", help="Such as temperature.")],
    as_json: AsJSON = False,
) -> None:
    changes: dict[str, dict[str, None]] = {}
    for setting in settings:
        group, key = _group_and_name(setting)
        changes.setdefault(group, {})[key] = None
    with Server.from_environment() as server:
        preset = server.send("PATCH", _path(name), changes)
    _say(preset, f"{preset['name']} is now version {preset['version']}.", as_json=as_json)


@app.command(help="Delete a preset with all its versions.")
def delete(name: Name, as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.send("DELETE", _path(name))
    _say(reply, f"Deleted {name}", as_json=as_json)


@app.command(help="Copy a preset to another name.")
def duplicate(
    name: Name, copy: Annotated[str, typer.Argument(metavar="COPY", help="Name of the copy.")], as_json: AsJSON = False
) -> None:
    with Server.from_environment() as server:
        preset = server.post(f"{_path(name)}/duplicate", {"name": copy})
    _say(preset, f"{preset['name']} is a copy of {name}.", as_json=as_json)


@app.command(help="Compare a preset with another, or with an earlier version.")
def diff(
    name: Name,
    other: Annotated[str | None, typer.Argument(metavar="OTHER", help="The preset to compare it with.")] = None,
    version: Version = None,
    as_json: AsJSON = False,
) -> None:
    if (other is None) == (version is None):
        raise typer.BadParameter("name another preset, or use --version for an earlier version")
    query = {"with": other} if other is not None else {"version": version}
    with Server.from_environment() as server:
        reply = server.get(f"{_path(name)}/diff?{urlencode(query)}")
    if as_json:
        show_json(reply)
    elif reply["differences"]:
        rows = [
            [f"{each['group']}.{each['setting']}", _shown(each["before"]), _shown(each["after"])]
            for each in reply["differences"]
        ]
        show_listing(DIFFERENCES, rows)
    else:
        remark("The settings are the same.")


@app.command(help="List the versions of a preset.")
def versions(name: Name, as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get(f"{_path(name)}/versions")
    if as_json:
        show_json(reply)
    else:
        show_listing(KNOWN, [_known_row(preset) for preset in reply["versions"]])


@app.command("import", help="Import a preset from a file, ours or LM Studio's *.preset.json.")
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False)],
    name: Annotated[str | None, typer.Option(help="Name of the preset (default: the file's).")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a preset of that name.")] = False,
    as_json: AsJSON = False,
) -> None:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise Failure(f"{file} is not JSON: {error}") from None
    body = {"file": content, "replace": replace, **({"name": name} if name else {})}
    with Server.from_environment() as server:
        preset = server.post(f"{PATH}/import", body)
    _say(preset, f"{preset['name']} is now version {preset['version']}.", as_json=as_json)
    if preset["ignored"] and not as_json:
        remark(printable(f"Ignored, as unknown here: {', '.join(preset['ignored'])}"))


@app.command(help="Write a preset to standard output.")
def export(
    name: Name,
    lmstudio: Annotated[bool, typer.Option("--lmstudio", help="As LM Studio's *.preset.json.")] = False,
) -> None:
    with Server.from_environment() as server:
        show_json(server.get(f"{_path(name)}/export{'?format=lmstudio' if lmstudio else ''}"))


@app.command(help="Set or remove the default preset of a model.")
def default(
    model: ModelKey,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The preset.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Use no default preset.")] = False,
    as_json: AsJSON = False,
) -> None:
    if (name is None) != none:
        raise typer.BadParameter("name a preset, or use --none")
    with Server.from_environment() as server:
        reply = server.post("/api/v1/models/default-preset", {"model": model, "preset": name})
    _say(reply, f"{reply['model']}: {reply['default_preset'] or 'no default preset'}", as_json=as_json)


def settings(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model or an instance.")],
    preset: Annotated[str | None, typer.Option(help="Show the settings of a request that names this preset.")] = None,
    instance: Annotated[str | None, typer.Option(metavar="ID", help="Show the settings of this instance.")] = None,
    as_json: AsJSON = False,
) -> None:
    query = {name: value for name, value in (("preset", preset), ("instance", instance)) if value is not None}
    path = f"/api/v1/models/{quote(model, safe='/')}/settings" + (f"?{urlencode(query)}" if query else "")
    with Server.from_environment() as server:
        reply = server.get(path)
    if as_json:
        show_json(reply)
        return
    entries = reply["settings"].items()
    show_listing(SETTINGS, [[name, _shown(each["value"]), each["origin"]] for name, each in entries])


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"


def _changes(values: list[str]) -> Json:
    changes: Json = {}
    for entry in values:
        named, equals, text = entry.partition("=")
        if not equals:
            raise typer.BadParameter(f"{entry}: write SETTING=VALUE")
        group, key = _group_and_name(named)
        changes.setdefault(group, {})[key] = _value(group, key, text)
    return changes


def _group_and_name(named: str) -> tuple[str, str]:
    """`temperature` or `inference.temperature`."""
    group, dot, key = named.rpartition(".")
    groups = [each for each, rows in TABLE.items() if key in rows and (not dot or each == group)]
    if not groups:
        every = [name for rows in TABLE.values() for name in rows]
        raise typer.BadParameter(f"{named}: unknown setting.{near_hint(key, every)}")
    return groups[0], key


def _value(group: str, key: str, text: str) -> object:
    """The text itself for settings of text; otherwise the value that it is as JSON."""
    if text.startswith("@"):
        try:
            return Path(text[1:]).expanduser().read_text()
        except OSError as error:
            raise Failure(f"{text[1:]} cannot be read: {error.strerror}") from None
    if TABLE[group][key].type in (str, str | None):  # type: ignore[index]
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the server rejects it and says what it expects


def _known_row(preset: Json) -> list[str]:
    settings = ", ".join(f"{key}={_shown(value, 20)}" for _, key, value in _entries(preset))
    return [preset["name"], str(preset["version"]), preset["model"] or "", settings]


def _entries(preset: Json) -> list[tuple[str, str, object]]:
    return [(group, key, value) for group in TABLE for key, value in preset[group].items()]


def _shown(value: object, longest: int = LONGEST_SHOWN) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _say(reply: Json, text: str, *, as_json: bool) -> None:
    if as_json:
        show_json(reply)
    else:
        typer.echo(printable(text))
