"""`atelier`: all verbs by name. A verb's module is imported when the verb runs, so that help and errors are quick."""

import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

from atelier.cli.output import Failure


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb's function is, and its line in the help."""

    module: str
    function: str
    help: str


VERBS = {
    "serve": Verb("atelier.cli.serve", "serve", "Start the server on this machine."),
    "status": Verb("atelier.cli.status", "status", "Show the state of the server."),
    "ls": Verb("atelier.cli.models", "list_models", "List the server's models."),
    "show": Verb("atelier.cli.models", "show_model", "Show the details of a model."),
    "import": Verb("atelier.cli.models", "import_model", "Add a GGUF file on the server's machine."),
    "search": Verb("atelier.cli.hub", "search", "Search the Hugging Face hub for models."),
    "get": Verb("atelier.cli.hub", "get", "Download a model from the hub to the server."),
    "downloads": Verb("atelier.cli.hub", "downloads", "List, pause, resume or cancel downloads."),
    "rm": Verb("atelier.cli.models", "remove_model", "Delete a model's files."),
    "verify": Verb("atelier.cli.models", "verify_model", "Check models' files against their digests."),
    "presets": Verb("atelier.cli.presets", "app", "List presets; show, change, compare or import one."),
    "settings": Verb("atelier.cli.presets", "settings", "Show a model's settings and where each comes from."),
    "load": Verb("atelier.cli.load", "load", "Load a model: start a worker for it."),
    "scale": Verb("atelier.cli.instances", "scale", "Set how many instances a model has."),
    "ps": Verb("atelier.cli.instances", "list_instances", "List the loaded models."),
    "devices": Verb("atelier.cli.status", "list_devices", "List the devices that models can use."),
    "disk": Verb("atelier.cli.status", "disk", "Show the disk space of the server's files."),
    "unload": Verb("atelier.cli.instances", "unload", "Unload one model or all."),
    "chat": Verb("atelier.cli.chat", "chat", "Chat with a model."),
    "mcp": Verb("atelier.cli.mcp_servers", "app", "Serve MCP on stdin and stdout; add or test MCP servers."),
    "version": Verb("atelier.cli.status", "version", "Show the version of this program."),
}


class Verbs(TyperGroup):
    """The group of all verbs; it imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command_of(name) if name in VERBS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            from atelier.cli.output import printable  # only on failure, which is rare

            typer.echo(f"atelier: {printable(str(failure))}", err=True)  # may contain an MCP server's text
            raise typer.Exit(1) from None


def command_of(name: str) -> Any:
    """The verb's command, with its options."""
    verb = VERBS[name]
    function = getattr(importlib.import_module(verb.module), verb.function)
    if isinstance(function, typer.Typer):  # a verb with subcommands
        function.info.name, function.info.help = name, verb.help
        return typer.main.get_command(function)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, help=verb.help)(function)
    return typer.main.get_command(single)


def _listed() -> None:
    """Placeholder for a verb in the list of all verbs."""


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="LM Atelier: local models behind one address.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="All commands but serve use the server at ATELIER_URL (default: http://127.0.0.1:1234), with the key in "
    "ATELIER_API_KEY if set. Exit status: 1 after a failure, 2 after a usage error.",
)
for _name, _verb in VERBS.items():
    app.command(_name, help=_verb.help)(_listed)
