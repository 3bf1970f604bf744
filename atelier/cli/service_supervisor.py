"""The server's processes, from the first start to the last exit."""

import asyncio
import os
import secrets
import signal
from collections.abc import Coroutine, Mapping

import typer
from pydantic import SecretStr

from atelier.cli.children import Child
from atelier.cli.readiness import announce_when_ready
from atelier.cli.service_log import set_aside_if_large, show_warnings
from atelier.config import Config

PREFIX = "ATELIER_"
STOP_MARGIN = 15.0  # seconds beyond the requests' grace period, to kill workers that do not stop


def service_environment(config: Config, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of both services: `inherited`, with each field of the configuration as ATELIER_<FIELD>.

    Variables carry the configuration because other users cannot read them, unlike arguments. The logs are JSON, which
    `serve` reads. Modules in the working directory cannot be imported. As pydantic-settings does, names of variables
    are compared without regard to case.
    """
    fields = {PREFIX + name.upper(): as_text(getattr(config, name)) for name in Config.model_fields}
    kept = {name: value for name, value in inherited.items() if name.upper() not in fields}
    given = {name: text for name, text in fields.items() if text}
    return {**kept, **given, f"{PREFIX}LOG_FORMAT": "json", "PYTHONSAFEPATH": "1"}


def without_api_key(environment: Mapping[str, str]) -> dict[str, str]:
    """For the registry and the workers that it starts: they never see a client's key."""
    return {name: value for name, value in environment.items() if name.upper() != f"{PREFIX}API_KEY"}


def as_text(value: object) -> str:
    """A field's value as its variable holds it; "" when it is unset, as an empty variable means."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, list) else str(value)


class Interrupts:
    """Ctrl-C and SIGTERM: the first stops the server, the second kills the gateway, the third the registry."""

    def __init__(self) -> None:
        self.stop, self.kill_gateway, self.kill_registry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._next)

    def _next(self) -> None:
        events = (self.stop, self.kill_gateway, self.kill_registry)
        ahead = [event for event in events if not event.is_set()]
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
        """Stop the gateway, which finishes running requests; then the registry, which stops the workers.

        A second interrupt kills the gateway and its requests. The registry is spared until a third one: without it,
        the workers would run until their grace period ends.
        """
        await self.gateway.stop(self._grace, interrupts.kill_gateway)
        await self.registry.stop(self._grace, interrupts.kill_registry)


async def run(config: Config) -> None:
    """Start the services, keep them running, and stop them on request. Raises Failure when one cannot run."""
    interrupts, services = Interrupts(), Services(config)
    warnings = asyncio.create_task(show_warnings("registry", services.registry.log, complain))
    try:
        await until_stopped(
            interrupts.stop,
            services.registry.keep_running(),
            services.gateway.keep_running(),
            _announce_then_show_warnings(config, services.gateway),
        )
        typer.echo("Stopping. Press Ctrl-C again to cancel running requests.")
    finally:
        await services.stop(interrupts)
        await cancelled(warnings)
    typer.echo("Stopped.")


async def _announce_then_show_warnings(config: Config, gateway: Child) -> None:
    """While it starts, the gateway always warns that the registry is not reachable yet: that is not shown."""
    await announce_when_ready(config)
    await show_warnings(gateway.name, gateway.log, complain)


async def until_stopped(stop: asyncio.Event, *works: Coroutine[object, object, None]) -> None:
    """Run the coroutines until `stop` is set; the first exception of one cancels all."""
    stopped = asyncio.create_task(stop.wait())
    running: set[asyncio.Task[bool] | asyncio.Task[None]] = {stopped, *(asyncio.create_task(work) for work in works)}
    try:
        while stopped in running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        await cancelled(*running)


async def cancelled(*tasks: asyncio.Task[bool] | asyncio.Task[None]) -> None:
    """Cancel the tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def complain(text: str) -> None:
    """Show a line on the terminal that needs attention."""
    typer.secho(text, err=True, fg=typer.colors.YELLOW)
