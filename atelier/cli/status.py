"""`status` and `version`."""

import typer

from atelier import __version__
from atelier.cli.client import Server
from atelier.cli.options import AsJSON
from atelier.cli.output import human_time, show_json


def status(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/status")
        url = server.url
    if as_json:
        show_json(reply)
        return
    requests = reply["requests"]
    typer.echo(f"LM Atelier {reply['version']} at {url}, up for {human_time(reply['uptime_seconds'])}")
    typer.echo(f"registry  {reply['registry']}")
    typer.echo(f"models    {reply['models']}")
    typer.echo(f"loaded    {reply['instances']}")
    typer.echo(f"requests  {requests['active']} active, {requests['waiting']} waiting")


def version() -> None:
    typer.echo(f"atelier {__version__}")
