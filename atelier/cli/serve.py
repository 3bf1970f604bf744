"""`serve`: its options, the checks before the start, and the call of the supervisor."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from atelier import __version__
from atelier.cli.output import Failure

if TYPE_CHECKING:
    from atelier.config import Config

Text = str | None
Number = float | None


def serve(
    ctx: typer.Context,
    host: Annotated[Text, typer.Option(help="Address to listen on.  [127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.  [1234]")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Directory of models, database and logs.  [~/.atelier]")] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help='Origin whose web pages may call the server; "*": any.  [none]')
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None, typer.Option(help="Further name that is accepted in the Host header.")
    ] = None,
    api_key: Annotated[Text, typer.Option(help="Key that every request must carry; safer in ATELIER_API_KEY.")] = None,
    allow_open: Annotated[
        bool | None, typer.Option(help="Accept requests from other machines without a key.  [off]")
    ] = None,
    body_limit_mb: Annotated[Number, typer.Option(help="Maximum size of a request body, in MiB.  [32]")] = None,
    fetch_images: Annotated[
        bool | None, typer.Option(help="Fetch images that requests name by URL, from public addresses.  [on]")
    ] = None,
    outbound_hosts: Annotated[
        list[str] | None, typer.Option(help="Non-public host (name or name:port) that requests may fetch from.")
    ] = None,
    mcp_requests: Annotated[
        bool | None, typer.Option(help="Let requests bring their own MCP servers, at public addresses.  [off]")
    ] = None,
    mcp_steps: Annotated[
        int | None, typer.Option(min=2, help="Maximum generations in one answer that calls MCP tools.  [16]")
    ] = None,
    mcp_seconds: Annotated[
        Number, typer.Option(help="Seconds after which such an answer calls no tools.  [300]")
    ] = None,
    mcp_result_kb: Annotated[
        Number, typer.Option(help="Maximum text of an MCP tool's result, in KiB; more is cut.  [256]")
    ] = None,
    mcp_idle: Annotated[
        Number, typer.Option(help="Seconds after which an unused connection to an MCP server is closed.  [600]")
    ] = None,
    mcp_elicitation: Annotated[
        Number, typer.Option(help="Seconds that a user has for an MCP server's questions during one call.  [300]")
    ] = None,
    max_queued: Annotated[
        int | None, typer.Option(help="Maximum requests running and waiting; more get a 503.  [256]")
    ] = None,
    queue_timeout: Annotated[
        Number, typer.Option(help="Seconds for which a request may wait for its turn before a 503.  [no limit]")
    ] = None,
    embedding_encoding: Annotated[
        Literal["as_asked", "float"] | None, typer.Option(help="float: never send embeddings as base64.  [as_asked]")
    ] = None,
    load_on_demand: Annotated[bool | None, typer.Option(help="Load a model when a request names it.  [on]")] = None,
    idle_ttl: Annotated[
        Number, typer.Option(help="Seconds after which such a model is unloaded if unused; 0: never.  [3600]")
    ] = None,
    guardrail: Annotated[
        str | None,
        typer.Option(help="Memory that loads leave free: off, relaxed, balanced, strict or custom.  [balanced]"),
    ] = None,
    guardrail_mb: Annotated[
        int | None, typer.Option(min=0, help="That memory in MiB, with --guardrail custom.  [0]")
    ] = None,
    room_timeout: Annotated[
        Number, typer.Option(help="Seconds that a load waits for busy models to free memory.  [60]")
    ] = None,
    rpc_servers: Annotated[
        list[str] | None, typer.Option(help="llama.cpp RPC server (host:port) whose devices models can use.")
    ] = None,
    response_days: Annotated[
        Number, typer.Option(help="Days for which responses that can be continued are stored.  [30]")
    ] = None,
    response_limit_mb: Annotated[
        Number, typer.Option(help="Maximum size of all stored responses, in MiB.  [1024]")
    ] = None,
    shutdown_grace: Annotated[
        Number, typer.Option(help="Seconds in which running requests may finish at shutdown.  [30]")
    ] = None,
    load_timeout: Annotated[Number, typer.Option(help="Seconds in which a model must load.  [600]")] = None,
    stall_timeout: Annotated[
        Number, typer.Option(help="Seconds after which a silent worker gets no requests.  [20]")
    ] = None,
    restart_limit: Annotated[
        int | None, typer.Option(help="Maximum restarts of an instance after crashes in a row.  [5]")
    ] = None,
    spare_worker: Annotated[
        bool | None, typer.Option(help="Keep a worker process ready for the next load.  [on]")
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="Lowest level that is logged.  [info]")
    ] = None,
) -> None:
    typer.echo(f"LM Atelier {__version__} is starting (press Ctrl-C to stop).")
    config = configured(ctx.params)
    from atelier.cli.preflight import checked
    from atelier.cli.service_supervisor import run

    asyncio.run(run(checked(config)))


def configured(options: Mapping[str, object]) -> "Config":
    """The configuration: options override ATELIER_* variables, which override defaults. Raises Failure."""
    from pydantic import ValidationError

    from atelier.config import Config

    given: dict[str, Any] = {
        name: ",".join(value) if isinstance(value, list | tuple) else value
        for name, value in options.items()
        if value not in (None, [], ())
    }
    try:
        return Config(**given)
    except ValidationError as error:
        faults = [f"ATELIER_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise Failure("The configuration is not valid. " + "; ".join(faults)) from None
