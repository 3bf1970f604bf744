"""`serve`: the options, the checks, and the way into the supervisor."""

import asyncio
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
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.  [1234]")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Where models, the database and logs lie.  [~/.atelier]")] = None,
    cors: Annotated[list[str] | None, typer.Option(help='Origins of web pages that may call; "*" for all.')] = None,
    allowed_hosts: Annotated[list[str] | None, typer.Option(help="Further names in the Host header.")] = None,
    api_key: Annotated[Text, typer.Option(help="Key to ask for; safer in ATELIER_API_KEY.")] = None,
    allow_open: Annotated[bool | None, typer.Option(help="Listen beyond this machine without a key.")] = None,
    body_limit_mb: Annotated[Number, typer.Option(help="Largest request body, in MiB.  [32]")] = None,
    fetch_images: Annotated[
        bool | None, typer.Option(help="Fetch images that requests name by URL, from public addresses.  [on]")
    ] = None,
    outbound_hosts: Annotated[
        list[str] | None, typer.Option(help="Hosts to fetch from though they are not public: name or name:port.")
    ] = None,
    mcp_requests: Annotated[
        bool | None, typer.Option(help="Let requests name MCP servers of their own, at public addresses.  [off]")
    ] = None,
    mcp_steps: Annotated[
        int | None, typer.Option(min=2, help="Times a model may write in an answer that calls MCP tools.  [16]")
    ] = None,
    mcp_seconds: Annotated[Number, typer.Option(help="Seconds for which such an answer calls tools.  [300]")] = None,
    mcp_result_kb: Annotated[
        Number, typer.Option(help="Text of an MCP tool's result that a model gets, in KiB.  [256]")
    ] = None,
    mcp_idle: Annotated[
        Number, typer.Option(help="Seconds without use before an MCP server's connection is closed.  [600]")
    ] = None,
    mcp_elicitation: Annotated[
        Number, typer.Option(help="Seconds for users to answer what an MCP server asks in a call.  [300]")
    ] = None,
    max_queued: Annotated[int | None, typer.Option(help="Requests in work or waiting before a 503.  [256]")] = None,
    queue_timeout: Annotated[
        Number, typer.Option(help="Seconds that a request may wait for its turn before a 503.  [any]")
    ] = None,
    embedding_encoding: Annotated[
        Literal["as_asked", "float"] | None, typer.Option(help="float: vectors are never base64.  [as_asked]")
    ] = None,
    load_on_demand: Annotated[bool | None, typer.Option(help="Load a model when a request names it.  [on]")] = None,
    idle_ttl: Annotated[
        Number, typer.Option(help="Seconds without work after which such a model is unloaded; 0: never.  [3600]")
    ] = None,
    guardrail: Annotated[
        str | None, typer.Option(help="off, relaxed, balanced, strict: memory that loads leave free.  [balanced]")
    ] = None,
    guardrail_mb: Annotated[
        int | None, typer.Option(min=0, help="MiB that loads leave free, with --guardrail custom.")
    ] = None,
    room_timeout: Annotated[
        Number, typer.Option(help="Seconds that a load waits for busy models to make room.  [60]")
    ] = None,
    rpc_servers: Annotated[
        list[str] | None, typer.Option(help="llama.cpp RPC servers, host:port, whose devices models can be put on.")
    ] = None,
    response_days: Annotated[
        Number, typer.Option(help="Days for which responses are kept that clients may continue.  [30]")
    ] = None,
    response_limit_mb: Annotated[Number, typer.Option(help="MiB that they may take together.  [1024]")] = None,
    shutdown_grace: Annotated[Number, typer.Option(help="Seconds that running requests get at a stop.  [30]")] = None,
    load_timeout: Annotated[Number, typer.Option(help="Seconds that a model may take to load.  [600]")] = None,
    stall_timeout: Annotated[
        Number, typer.Option(help="Seconds of silence before a worker is passed over.  [20]")
    ] = None,
    restart_limit: Annotated[int | None, typer.Option(help="Crashes before an instance is given up.  [5]")] = None,
    spare_worker: Annotated[
        bool | None, typer.Option(help="Keep a worker process ready for the next load.  [on]")
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="How much the logs say.  [info]")
    ] = None,
) -> None:
    typer.echo(f"LM Atelier {__version__} is starting (Ctrl-C stops it).")
    config = checked(configured(ctx.params))
    from atelier.cli.service_supervisor import run

    asyncio.run(run(config))


def configured(options: dict[str, Any]) -> "Config":
    """The configuration: options before ATELIER_* variables before defaults."""
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


def checked(config: "Config") -> "Config":
    """The configuration, with the port settled, if the server can start with it."""
    from atelier.cli.preflight import check_exposure, check_home_is_free, claim_port, prepare_home

    check_exposure(config)
    prepare_home(config)
    check_home_is_free(config)
    return config.model_copy(update={"port": claim_port(config.host, config.port)})
