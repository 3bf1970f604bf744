"""`mcp add`, `ls`, `rm`, `test`: the MCP servers in the home's `mcp.json`, whose tools models can use."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

import typer

from atelier.cli.output import AsJSON, Column, Failure, printable, remark, show_json, show_listing
from atelier.cli.rest_client import Server
from atelier.cli.serve import configured
from atelier.json_types import Json
from atelier.mcp_file import SERVERS, WrongFile, entry_of, read_document, write_document

PATH = "/api/v1/mcp/servers"
LONGEST_SHOWN = 60  # characters of a description in a table

Label = Annotated[str, typer.Argument(metavar="LABEL", help="Label of the server in mcp.json.")]

KNOWN = (Column("LABEL"), Column("KIND"), Column("STATE"), Column("TOOLS", right=True), Column("APPROVAL"))
TOOLS = (Column("TOOL"), Column("USED"), Column("DESCRIPTION"))

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Serve MCP on standard input and output, for programs that start MCP servers as commands;\n"
    "or list the MCP servers whose tools models can use; add, remove or test one.",
)


@app.callback(invoke_without_command=True)
def mcp(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    if sys.stdin.isatty():  # a person, not an MCP client
        typer.echo(context.get_help())
        return
    from atelier.cli.mcp_bridge import speak_mcp  # here, as the SDK is slow to import

    speak_mcp()


@app.command(help="Add a server: a command after --, or a URL with --url.")
def add(
    label: Label,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND [ARGUMENT]...]", help="Command that starts the server.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="URL of a server that is not a command.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="Header NAME:VALUE of every request to it.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="Variable NAME=VALUE of the command.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Working directory of the command.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Allow only this tool; may be repeated.")] = None,
    approve: Annotated[
        list[str] | None, typer.Option(help="Calls that need approval: always, never, or a tool's name.  [never]")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Timeout of a call, in seconds.  [60]")] = None,
    sampling: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model for the server's sampling requests.  [none]")
    ] = None,
    elicitation: Annotated[bool, typer.Option("--elicitation", help="Let the server ask the user questions.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the server of that label.")] = False,
) -> None:
    given = {
        "command": command[0] if command else None,
        "args": command[1:] if command else None,
        "url": url,
        "headers": _pairs(header, ":", "--header"),
        "env": _pairs(env, "=", "--env"),
        "cwd": cwd,
        "allowedTools": allow or None,
        "requireApproval": _approval(approve),
        "timeout": timeout,
        "sampling": sampling,
        "elicitation": elicitation or None,
    }
    entry = {key: value for key, value in given.items() if value is not None}
    _check(label, entry)
    document = _document()
    servers = document.setdefault(SERVERS, {})
    if label in servers and not replace:
        raise Failure(f'mcp.json already has a server "{label}"; use --replace to replace it.')
    servers[label] = entry
    _write(document)
    remark(f"Added {label}. Test it with: atelier mcp test {label}")


@app.command("ls", help="List the servers and their states.")
def list_servers(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get(PATH)
    if as_json:
        show_json(reply)
        return
    if reply["error"] is not None:
        remark(f"mcp.json is not valid, so its previous content applies: {printable(reply['error'])}")
    rows = [_row(known) for known in reply["servers"]] + [
        [label, "", "disabled", "", ""] for label in reply["disabled"]
    ]
    if rows:
        show_listing(KNOWN, rows)
    else:
        remark("No MCP servers yet. Add one with: atelier mcp add LABEL -- COMMAND")


@app.command("rm", help="Remove a server from mcp.json.")
def remove(label: Label) -> None:
    document = _document()
    if document.get(SERVERS, {}).pop(label, None) is None:
        raise Failure(f'mcp.json has no server "{label}".')
    _write(document)
    remark(f"Removed {label}.")


@app.command("test", help="Connect to a server and show its tools.")
def try_server(label: Label, as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.post(f"{PATH}/{quote(label, safe='')}/test", {}, patient=True)
    if as_json:
        show_json(reply)
        return
    remark(f"{label} speaks MCP {reply['protocol']} and listed its tools in {reply['seconds']:g} s.")
    if reply["tools"]:
        show_listing(TOOLS, [_tool_row(tool) for tool in reply["tools"]])
    else:
        remark("It has no tools that a model could use.")


def _check(label: str, entry: Json) -> None:
    try:
        entry_of(label, entry, None)
    except WrongFile as error:
        raise Failure(f"{error}.") from None


def _document() -> Json:
    """The content of mcp.json. Raises Failure when the server is on another machine."""
    with Server.from_environment() as server:
        if not server.is_on_this_machine:
            raise Failure(f"mcp.json is on the machine of {server.url}: change it there.")
    path = configured({}).mcp_file
    try:
        return read_document(path)
    except (WrongFile, OSError) as error:
        raise Failure(f"{path}: {error}") from None


def _write(document: Json) -> None:
    path = configured({}).mcp_file
    try:
        write_document(path, document)
    except OSError as error:
        raise Failure(f"{path}: {os.strerror(error.errno or 0)}") from None


def _pairs(given: Sequence[str] | None, between: str, option: str) -> dict[str, str] | None:
    if not given:
        return None
    found = {}
    for text in given:
        name, mark, value = text.partition(between)
        if not mark or not name.strip():
            raise Failure(f"{option}: must be NAME{between}VALUE")
        found[name.strip()] = value.strip()
    return found


def _approval(given: Sequence[str] | None) -> str | list[str] | None:
    if not given:
        return None
    modes = {"always", "never"}.intersection(given)
    if modes and len(given) > 1:
        raise Failure(f"--approve: {modes.pop()} cannot be combined with other values")
    return given[0] if modes else list(given)


def _row(server: Json) -> list[str]:
    approval = server["require_approval"]
    return [
        server["label"],
        server["kind"],
        server["state"],
        "" if server["tools"] is None else str(len(server["tools"])),
        approval if isinstance(approval, str) else ", ".join(approval),
    ]


def _tool_row(tool: Json) -> list[str]:
    use = "no" if not tool["allowed"] else "asks" if tool["needs_approval"] else "yes"
    text = " ".join(tool["description"].split())
    return [tool["name"], use, text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"]
