"""`status` and `version`."""

from collections import Counter
from typing import Any

import typer

from atelier import __version__
from atelier.cli.options import AsJSON
from atelier.cli.output import human_time, show_json
from atelier.cli.rest_client import Server


def status(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/status")
        instances = [] if as_json else server.get("/api/v1/instances")["instances"]
        url = server.url
    if as_json:
        show_json(reply)
        return
    requests = reply["requests"]
    typer.echo(f"LM Atelier {reply['version']} at {url}, up for {human_time(reply['uptime_seconds'])}")
    typer.echo(f"registry  {reply['registry']}")
    typer.echo(f"models    {reply['models']}")
    typer.echo(f"instances {by_state(instances)}")
    typer.echo(f"requests  {requests['active']} active, {requests['waiting']} waiting")


def by_state(instances: list[dict[str, Any]]) -> str:
    """One that failed, or still loads, is an instance but not a loaded model: "2 ready, 1 failed"."""
    counts = Counter(instance["state"] for instance in instances)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "none"


def version() -> None:
    typer.echo(f"atelier {__version__}")
