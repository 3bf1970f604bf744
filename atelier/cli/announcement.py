"""What `serve` says once the server answers."""

import asyncio

import typer

from atelier.cli.readiness import GatewayProbe, until
from atelier.cli.server_address import local_url
from atelier.config import Config

SLOW_START = 15.0  # seconds after which a start is worth a word

EXAMPLE = """\
curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'"""


async def announce_when_ready(config: Config) -> None:
    """Wait until the server answers, then say where they are and what they have."""
    waiting = asyncio.create_task(_say_if_slow(config))
    probe = GatewayProbe(config)
    try:
        await until(probe.is_ready)
        typer.echo(announcement(config, await probe.model_keys()))
    finally:
        waiting.cancel()


def announcement(config: Config, models: list[str]) -> str:
    """The address, the home, the models, and a first request to try."""
    url = local_url(config.host, config.port)
    lines = [f"Ready at {url}", f"  home    {config.home}", f"  models  {', '.join(models) or 'none yet'}"]
    if not models:
        return "\n".join([*lines, "Give it a model with: atelier get USER/REPO, or: atelier import FILE.gguf"])
    key = ' -H "Authorization: Bearer $ATELIER_API_KEY"' if config.api_key else ""
    return "\n".join([*lines, "Try:", EXAMPLE.format(url=url, key=key, model=models[0])])


async def _say_if_slow(config: Config) -> None:
    await asyncio.sleep(SLOW_START)
    typer.echo(f"Still starting. The logs are in {config.logs_dir}", err=True)
