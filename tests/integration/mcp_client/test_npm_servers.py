"""Published MCP servers for Node, through the MCP client."""

import asyncio
import base64
import io
import json
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import mcp
import mcp_types as types
import pytest
from PIL import Image

from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.core.mcp_server_config import Command, Endpoint, ServerConfig
from gateway.core.outbound import AddressGuard
from gateway.tools.mcp_client.connection_pool import ServerPool
from tests.support.gateway.gateway_server import PATIENCE, until
from tests.support.mcp import npm_servers
from tests.support.models.pictures import red

LONG = "trigger-long-running-operation"


class Answers:
    """A model and a user for servers that send requests."""

    async def sample(self, server: ServerConfig, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        said = params.messages[-1].content
        assert isinstance(said, types.TextContent)
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(text=f"I reported: {said.text}"), model="scripted"
        )

    async def __call__(self, server: ServerConfig, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada", "color": "green"})


@pytest.fixture
async def pool() -> AsyncIterator[ServerPool]:
    pool = ServerPool(AddressGuard(), sampling=Answers())
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
def everything_url() -> Iterator[str]:
    with npm_servers.everything_over_http() as url:
        yield url


@pytest.fixture(params=["stdio", "http"])
def everything(request: pytest.FixtureRequest) -> ServerConfig:
    if request.param == "stdio":
        return server_of(npm_servers.everything())
    url = request.getfixturevalue("everything_url")
    return ServerConfig("everything", Endpoint(url), sampling_model="scripted", elicitation=True)


def server_of(command: list[str]) -> ServerConfig:
    return ServerConfig(
        "everything", Command(command[0], tuple(command[1:])), sampling_model="scripted", elicitation=True
    )


def only_text(output: ToolOutput) -> str:
    (piece,) = output.pieces
    assert isinstance(piece, str)
    return piece


async def test_tools_are_listed_and_called_and_their_errors_are_error_results(
    pool: ServerPool, everything: ServerConfig
) -> None:
    tools = {tool.name: tool for tool in await pool.tools(everything)}
    assert {"echo", "get-sum", LONG, "trigger-sampling-request"} <= tools.keys()
    assert tools["echo"].description == "Echoes back the input string"
    assert tools["echo"].parameters["required"] == ["message"]
    assert tools["echo"].annotations["readOnlyHint"] is True

    good = await pool.call(everything, "echo", {"message": "grüß dich\n😀"})
    assert (only_text(good), good.is_error) == ("Echo: grüß dich\n😀", False)
    bad = await pool.call(everything, "echo", {"message": 7})
    assert bad.is_error
    assert "message" in bad.text
    unknown = await pool.call(everything, "no-such-tool", {})
    assert unknown.is_error
    assert "no-such-tool" in unknown.text


async def test_an_image_keeps_its_place_between_texts(pool: ServerPool, everything: ServerConfig) -> None:
    output = await pool.call(everything, "get-tiny-image", {})
    before, image, after = output.pieces
    assert isinstance(before, str)
    assert isinstance(image, ToolImage)
    assert isinstance(after, str)
    assert image.media_type == "image/png"
    # Pillow cannot open this one: a chunk about colours has a wrong checksum.
    assert struct.unpack(">4sII", base64.b64decode(image.data)[12:24]) == (b"IHDR", 20, 20)


async def test_a_structured_result_is_returned_as_text(pool: ServerPool, everything: ServerConfig) -> None:
    output = await pool.call(everything, "get-structured-content", {"location": "Chicago"})
    assert not output.is_error
    assert json.loads(only_text(output))["temperature"] == 36


async def test_links_and_embedded_resources_become_text(pool: ServerPool, everything: ServerConfig) -> None:
    linked = await pool.call(everything, "get-resource-links", {"count": 2})
    assert "demo://resource/dynamic/" in linked.text
    embedded = await pool.call(everything, "get-resource-reference", {"resourceType": "Text", "resourceId": 1})
    assert "demo://resource/dynamic/text/1" in embedded.text
    assert "This is a plaintext resource" in embedded.text


async def test_progress_of_a_long_call_is_reported(pool: ServerPool, everything: ServerConfig) -> None:
    reported: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, total))

    output = await pool.call(everything, LONG, {"duration": 0.3, "steps": 3}, note)
    assert "completed" in only_text(output)
    assert reported == [(1, 3), (2, 3), (3, 3)]


async def test_calls_of_one_connection_run_concurrently(pool: ServerPool, everything: ServerConfig) -> None:
    await pool.tools(everything)
    slow = asyncio.create_task(pool.call(everything, LONG, {"duration": 0.5, "steps": 1}))
    quick = await asyncio.gather(*(pool.call(everything, "get-sum", {"a": n, "b": 1}) for n in range(5)))
    assert not slow.done()
    assert [f" {n + 1}." in output.text for n, output in enumerate(quick)] == [True] * 5
    await slow


async def test_a_cancelled_call_is_cancelled_at_the_server(pool: ServerPool, tmp_path: Path) -> None:
    tapped = Wire(tmp_path)
    server = server_of(tapped.around(npm_servers.everything()))
    begun = asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    arguments = {"duration": 0.6, "steps": 3}
    call = asyncio.create_task(pool.call(server, LONG, arguments, note))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: tapped.sent("notifications/cancelled"))
    await pool.call(server, LONG, arguments)  # ends after the other would have ended

    given_up, finished = (message["id"] for message in tapped.sent("tools/call"))
    (cancelled,) = tapped.sent("notifications/cancelled")
    assert cancelled["params"]["requestId"] == given_up
    await until(lambda: finished in tapped.answered())
    assert given_up not in tapped.answered()


async def test_a_restarted_server_is_used_again(pool: ServerPool) -> None:
    with npm_servers.everything_over_http() as url:
        server = ServerConfig("everything", Endpoint(url))
        await pool.call(server, "echo", {"message": "first"})
    with npm_servers.everything_over_http(port=httpx2.URL(url).port or 0):
        output = await pool.call(server, "echo", {"message": "second"})  # in a session that the server does not know
        assert (output.text, output.is_error) == ("Echo: second", False)


async def test_a_server_may_ask_a_model_and_the_user_during_a_call(pool: ServerPool, everything: ServerConfig) -> None:
    sampled = await pool.call(everything, "trigger-sampling-request", {"prompt": "who is there?", "maxTokens": 10})
    assert "I reported: " in sampled.text
    assert "who is there?" in sampled.text
    elicited = await pool.call(everything, "trigger-elicitation-request", {}, elicit=Answers())
    assert "- Name: Ada" in elicited.text


async def test_files_are_written_and_read_within_their_folder_only(pool: ServerPool, tmp_path: Path) -> None:
    shown, hidden = tmp_path / "shown", tmp_path / "hidden.txt"
    shown.mkdir()
    hidden.write_text("secret")
    (shown / "dot.png").write_bytes(red(3, 2))
    command = npm_servers.filesystem(shown)
    server = ServerConfig("files", Command(command[0], tuple(command[1:])))

    names = {tool.name for tool in await pool.tools(server)}
    assert {"read_text_file", "write_file", "list_directory"} <= names
    await pool.call(server, "write_file", {"path": str(shown / "note.txt"), "content": "first\nsecond\n"})
    assert (shown / "note.txt").read_text() == "first\nsecond\n"
    read = await pool.call(server, "read_text_file", {"path": str(shown / "note.txt"), "head": 1})
    assert only_text(read).strip() == "first"
    listed = await pool.call(server, "list_directory", {"path": str(shown)})
    assert set(only_text(listed).splitlines()) == {"[FILE] dot.png", "[FILE] note.txt"}
    media = await pool.call(server, "read_media_file", {"path": str(shown / "dot.png")})
    (image,) = [piece for piece in media.pieces if isinstance(piece, ToolImage)]
    assert Image.open(io.BytesIO(base64.b64decode(image.data))).size == (3, 2)

    refused = await pool.call(server, "read_text_file", {"path": str(hidden)})
    assert refused.is_error
    assert "Access denied" in refused.text
    assert "secret" not in refused.text


async def test_resources_and_prompts_are_read_with_the_sdk() -> None:
    """The MCP client does not use these operations; the SDK that it builds on does."""
    command = npm_servers.everything()
    parameters = mcp.StdioServerParameters(command=command[0], args=command[1:])
    async with asyncio.timeout(PATIENCE), mcp.Client(mcp.stdio_client(parameters)) as client:
        resources = (await client.list_resources()).resources
        assert resources
        (content,) = (await client.read_resource("demo://resource/dynamic/text/3")).contents
        assert isinstance(content, types.TextResourceContents)
        assert "Resource 3" in content.text
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        assert {"simple-prompt", "args-prompt"} <= prompts
        filled = await client.get_prompt("args-prompt", {"city": "Lübeck"})
        said = filled.messages[0].content
        assert isinstance(said, types.TextContent)
        assert "Lübeck" in said.text


class Wire:
    """The messages on a program's standard input and output, recorded by `tee`."""

    def __init__(self, folder: Path) -> None:
        self._in, self._out = folder / "in.txt", folder / "out.txt"

    def around(self, command: list[str]) -> list[str]:
        return [
            "sh",
            "-c",
            'in=$1 out=$2; shift 2; tee "$in" | "$@" | tee "$out"',
            "sh",
            str(self._in),
            str(self._out),
            *command,
        ]

    def sent(self, method: str) -> list[dict[str, Any]]:
        return [message for message in _messages(self._in) if message.get("method") == method]

    def answered(self) -> set[Any]:
        """The ids of the requests that have been answered."""
        return {message.get("id") for message in _messages(self._out) if "result" in message or "error" in message}


def _messages(path: Path) -> list[dict[str, Any]]:
    """The complete messages."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
