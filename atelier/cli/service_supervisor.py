"""The configuration as the services get it: by environment variables, which other users cannot read.
The server's processes, from the first start to the last end."""

import asyncio
import os
import secrets
import signal
from collections.abc import Coroutine, Mapping
from typing import Any

import typer
from pydantic import SecretStr

from atelier.cli.children import Child
from atelier.cli.readiness import announce_when_ready
from atelier.cli.service_log import set_aside_if_large, tell_warnings
from atelier.config import Config

PREFIX = "ATELIER_"


def service_environment(config: Config, inherited: Mapping[str, str]) -> dict[str, str]:
    """What both services need: `inherited`, with every field of the configuration as ATELIER_<FIELD>.

    The log is JSON, which `serve` reads; modules of the working directory are not importable there.
    A variable of a field is looked for in any case, as the services would read it.
    """
    told = {PREFIX + name.upper(): as_text(getattr(config, name)) for name in Config.model_fields}
    kept = {name: value for name, value in inherited.items() if name.upper() not in told}
    fields = {name: text for name, text in told.items() if text}
    return {**kept, **fields, f"{PREFIX}LOG_FORMAT": "json", "PYTHONSAFEPATH": "1"}


def without_api_key(environment: Mapping[str, str]) -> dict[str, str]:
    """For the registry, and so for the workers that it starts: they never see a client's key."""
    return {name: value for name, value in environment.items() if name.upper() != f"{PREFIX}API_KEY"}


def as_text(value: Any) -> str:
    """A field's value as its variable has it; "" when it is not set, as an empty variable means."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, list) else str(value)


STOP_MARGIN = 15.0  # seconds beyond the grace for requests: workers that do not end take some to be killed


class Interrupts:
    """Ctrl-C and SIGTERM: the first asks to stop, the second to make haste, the third to give up waiting."""

    def __init__(self) -> None:
        self.stop, self.haste, self.kill = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._next)

    def _next(self) -> None:
        ahead = [event for event in (self.stop, self.haste, self.kill) if not event.is_set()]
        for event in ahead[:1]:
            event.set()


class Services:
    """The registry and the gateway of one server."""

    def __init__(self, config: Config) -> None:
        self._grace = config.shutdown_grace + STOP_MARGIN
        token = config.registry_token or SecretStr(secrets.token_urlsafe(32))
        environment = service_environment(config.model_copy(update={"registry_token": token}), os.environ)
        logs = [config.logs_dir / f"{name}.log" for name in ("registry", "gateway")]
        for log in logs:
            set_aside_if_large(log)
            log.touch(mode=0o600)
        self.registry = Child("registry", without_api_key(environment), logs[0], complain)
        self.gateway = Child("gateway", environment, logs[1], complain)

    async def stop(self, interrupts: Interrupts) -> None:
        """First the gateway, which lets running requests end; then the registry, which stops the workers.

        Haste kills the gateway, and with it the requests. The registry must live to end its workers:
        without it they would notice only after a while.
        """
        await self.gateway.stop(self._grace, interrupts.haste)
        await self.registry.stop(self._grace, interrupts.kill)


async def run(config: Config) -> None:
    """Start the services, keep them running, stop them when asked to; Failure when one cannot run."""
    interrupts, services = Interrupts(), Services(config)
    telling = asyncio.create_task(tell_warnings("registry", services.registry.log, complain))
    try:
        await until_stopped(
            interrupts.stop,
            services.registry.keep_running(),
            services.gateway.keep_running(),
            _announce_then_tell(config, services.gateway),
        )
        typer.echo("Stopping. Ctrl-C again does not wait for running requests.")
    finally:
        await services.stop(interrupts)
        await cancelled(telling)
    typer.echo("Stopped.")


async def _announce_then_tell(config: Config, gateway: Child) -> None:
    """A gateway that starts cannot but warn that the registry is not there yet: nobody needs to read that."""
    await announce_when_ready(config)
    await tell_warnings(gateway.name, gateway.log, complain)


async def until_stopped(stop: asyncio.Event, *works: Coroutine[Any, Any, None]) -> None:
    """Run the works until `stop` is set; the first exception of one ends them all."""
    stopped = asyncio.create_task(stop.wait())
    running: set[asyncio.Task[Any]] = {stopped, *(asyncio.create_task(work) for work in works)}
    try:
        while stopped in running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        await cancelled(*running)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks, and wait until they are."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def complain(text: str) -> None:
    """A line on the terminal that a person should see."""
    typer.secho(text, err=True, fg=typer.colors.YELLOW)
