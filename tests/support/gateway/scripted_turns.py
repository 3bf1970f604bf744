"""Models that answer requests in turn as a test scripts them, and the requests they received."""

import json
from typing import Any

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from worker.engine.interface import ChatPrompt, Request


def call(name: str, /, **arguments: Any) -> dict[str, str]:
    """A tool call of a script."""
    return {"name": name, "arguments": json.dumps(arguments)}


READS = {"text": "", "reasoning": "I read it.", "tool_calls": [call("read_note", name="n1")]}
ANSWERS = {"text": "It is blue.", "reasoning": ""}


async def follow(registry: FakeRegistry, *turns: dict[str, Any]) -> list[Request]:
    """The script's turns, and every request that reaches the worker."""
    registry.script.update({"turns": list(turns)})
    await registry.start_instance()
    engine = registry.workers[KEY].engine
    submit, requests = engine.submit, list[Request]()

    def keep(source: Any, request: Request) -> None:
        requests.append(request)
        submit(source, request)

    engine.submit = keep  # type: ignore[method-assign]
    return requests


def messages_of(request: Request) -> list[dict[str, Any]]:
    assert isinstance(request.prompt, ChatPrompt)
    return list(request.prompt.messages)


def images_of(request: Request) -> list[bytes]:
    """As files."""
    assert isinstance(request.prompt, ChatPrompt)
    return list(request.prompt.images)


def tools_of(request: Request) -> list[str]:
    assert isinstance(request.prompt, ChatPrompt)
    return [tool.name for tool in request.prompt.tools.tools] if request.prompt.tools else []
