"""Images over the real wire, with the official clients: the scripted engine describes its images."""

import base64
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import lmstudio
import ollama
import openai
import pytest

from gateway.core.images import LARGEST_IMAGE, encoded_length
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, fake_registry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, short_directory
from tests.support.gateway.sdk_client import open_socket, with_client
from tests.support.models.pictures import red

BLIND = "acme/blind"


RED = base64.b64encode(red(3, 2)).decode()
DATA_URL = f"data:image/png;base64,{RED}"
SEEN = "[image PNG 3x2]"


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = red(5, 4, "JPEG")
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("content-length", str(len(body)))
        self.send_header("location", "/there")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a server with a JPEG at every path."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(PATIENCE)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    with short_directory() as directory:
        async with fake_registry(directory) as running:
            running.models = {KEY: model_message(made_for_vision=True), BLIND: model_message(BLIND)}
            yield running


@pytest.fixture
async def gateway(registry: FakeRegistry, web: str) -> AsyncIterator[RunningGateway]:
    async with running_gateway(registry, outbound_hosts=[web.removeprefix("http://")]) as running:
        yield running


async def post(gateway: RunningGateway, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with gateway.client() as http:
        reply = await http.post(path, json={"model": KEY, **body})
    return reply.status_code, reply.json()


def chat_of(*urls: str) -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "Look: "}, *images]}]


async def test_openais_chats_accept_embedded_and_remote_images(client: openai.AsyncOpenAI, web: str) -> None:
    reply = await client.chat.completions.create(model=KEY, messages=chat_of(DATA_URL, f"{web}/moved"))
    said = reply.choices[0].message.content or ""
    assert said.index(SEEN) < said.index("[image JPEG 5x4]")


async def test_a_stored_response_continues_with_its_images(client: openai.AsyncOpenAI, gateway: RunningGateway) -> None:
    part: Any = {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}
    first = await client.responses.create(model=KEY, input=[{"role": "user", "content": [part]}])
    assert SEEN in first.output_text
    items = await client.responses.input_items.list(first.id)
    assert items.data[0].content[0].image_url == DATA_URL  # type: ignore[union-attr]
    prompts: list[Any] = []
    submit = gateway.gateway.inference.check

    def noted(call: Any, origin: Any) -> Any:
        prompts.extend(call.prompts)
        return submit(call, origin)

    gateway.gateway.inference.check = noted  # type: ignore[method-assign]
    second = await client.responses.create(model=KEY, input="And now?", previous_response_id=first.id)
    assert second.status == "completed"
    [prompt] = prompts
    assert [image.path for image in prompt.images] == ["previous_response_id"]
    assert prompt.messages[0]["content"] == [{"type": "image"}]


async def test_anthropics_messages_accept_images_in_tool_results_too(gateway: RunningGateway, web: str) -> None:
    data: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": RED}}
    there: Any = {"type": "image", "source": {"type": "url", "url": f"{web}/a"}}
    use: Any = {"type": "tool_use", "id": "t", "name": "camera", "input": {}}
    result: Any = {"type": "tool_result", "tool_use_id": "t", "content": [data]}
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False, verify=False)
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, api_key="none", timeout=PATIENCE, max_retries=0, http_client=http
    ) as client:
        reply = await client.messages.create(
            model=KEY,
            max_tokens=50,
            messages=[
                {"role": "user", "content": "Look."},
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [result, data, there]},
            ],
        )
    [block] = reply.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert SEEN in block.text
    assert "[image JPEG 5x4]" in block.text


async def test_ollamas_chats_and_prompts_accept_images(gateway: RunningGateway) -> None:
    image = ollama.Image(value=red(3, 2))
    async with ollama.AsyncClient(gateway.url, timeout=PATIENCE, trust_env=False, verify=False) as client:
        chat = await client.chat(KEY, [ollama.Message(role="user", content="Look", images=[image])])
        generated = await client.generate(KEY, "Look", images=[image])
        shown = await client.show(KEY)
    assert SEEN in (chat.message.content or "")
    assert SEEN in generated.response
    assert "vision" in (shown.capabilities or [])


async def test_lm_studios_chat_continues_with_its_images(gateway: RunningGateway) -> None:
    items = [{"type": "text", "content": "Look"}, {"type": "image", "data_url": DATA_URL}]
    status, first = await post(gateway, "/api/v1/chat", {"input": items})
    assert status == 200
    assert SEEN in first["output"][0]["content"]
    body = {"input": "Again?", "previous_response_id": first["response_id"]}
    status, second = await post(gateway, "/api/v1/chat", body)
    assert (status, second["output"][0]["content"]) == (200, "Again?")


async def test_the_sdks_chats_have_their_uploaded_images(gateway: RunningGateway, registry: FakeRegistry) -> None:
    def look(client: lmstudio.Client) -> tuple[Any, str, str]:
        handle = client.prepare_image(red(3, 2), "red.png")
        chat = lmstudio.Chat()
        chat.add_user_message("Look", images=[handle])
        model = client.llm.model(KEY)
        return handle, model.respond(chat).content, model.apply_prompt_template(chat)

    handle, said, prompt = await with_client(gateway, look)
    assert (handle.name, handle.size_bytes, handle.file_type) == ("red.png", len(red(3, 2)), "image")
    assert said.index("Look") < said.index(SEEN)
    assert "Look" in prompt
    # An upload is not kept in the gateway that received it: behind a balancer another one may answer the chat.
    async with running_gateway(registry) as other:
        again = lmstudio.Chat()
        again.add_user_message("Look", images=[handle])
        assert SEEN in await with_client(other, lambda client: client.llm.model(KEY).respond(again).content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("aGk=", "is not a PNG"),
        ("a", "valid base64"),
        ("A" * (encoded_length(LARGEST_IMAGE) + 4), "larger than 20 MiB"),
        (5, "valid string"),
    ],
    ids=["text", "broken", "large", "number"],
)
async def test_an_upload_other_than_an_image_is_rejected(gateway: RunningGateway, content: Any, reason: str) -> None:
    async with open_socket(gateway, "files") as frames:
        reply = await frames.call("uploadFileBase64", {"name": "a", "contentBase64": content})
        assert (reply["type"], reply["error"]["errorData"]["param"]) == ("rpcError", "contentBase64")
        assert reason in reply["error"]["title"]
        assert (await frames.call("uploadFileBase64", {"name": "a", "contentBase64": RED}, 2))["type"] == "rpcResult"


async def test_the_sdk_names_the_file_that_is_unknown(gateway: RunningGateway, registry: FakeRegistry) -> None:
    chat = lmstudio.Chat()
    stranger = {"type": "file", "name": "a.png", "identifier": "17-a.png", "sizeBytes": 3, "fileType": "image"}
    chat.add_user_message("Look", images=[lmstudio.FileHandle._from_any_dict(stranger)])
    with pytest.raises(lmstudio.LMStudioServerError, match=r"content\[1\].identifier: unknown file identifier; upload"):
        await with_client(gateway, lambda client: client.llm._create_handle(KEY).respond(chat))
    assert registry.ensured == []


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/chat/completions", {"messages": chat_of(DATA_URL)}, "messages[0].content[1].image_url.url"),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": DATA_URL}]}]},
            "input[0].content[0].image_url",
        ),
        (
            "/v1/messages",
            {
                "max_tokens": 5,
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": RED}}]}
                ],
            },
            "messages[0].content[0].source.data",
        ),
        ("/api/chat", {"messages": [{"role": "user", "images": [RED]}]}, "messages[0].images[0]"),
        ("/api/generate", {"prompt": "Look", "images": [RED]}, "images[0]"),
        ("/api/v1/chat", {"input": [{"type": "image", "data_url": DATA_URL}]}, "input[0].data_url"),
    ],
)
async def test_a_model_without_vision_is_not_loaded_for_images(
    gateway: RunningGateway, registry: FakeRegistry, path: str, body: dict[str, Any], place: str
) -> None:
    status, reply = await post(gateway, path, {**body, "model": BLIND})
    assert status == 400
    error = reply["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message.startswith(place)
    assert "does not accept images" in message
    assert registry.ensured == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/a", "not public"),
        ("http://127.0.0.1:1/a", "a port other than 80"),
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("http://2130706433/", "not public"),
        ("data:image/png;base64,aGk=", "is not a PNG"),
        ("data:image/png;base64,a", "valid base64"),
        ("file:///etc/passwd", "http or https"),
    ],
)
async def test_an_invalid_image_loads_no_model(
    gateway: RunningGateway, registry: FakeRegistry, url: str, reason: str
) -> None:
    status, reply = await post(gateway, "/v1/chat/completions", {"messages": chat_of(url)})
    assert (status, reply["error"]["param"]) == (400, "messages[0].content[1].image_url.url")
    assert reason in reply["error"]["message"]
    assert registry.ensured == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages/count_tokens", "/apply-template"])
async def test_a_draining_gateway_fetches_no_images(gateway: RunningGateway, path: str) -> None:
    gateway.gateway.admission.close()
    source = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}}
    messages = [{"role": "user", "content": [source]}] if path.startswith("/v1/m") else chat_of("http://127.0.0.1/")
    status, _ = await post(gateway, path, {"messages": messages, "max_tokens": 8})
    assert status == 503  # and not 400, as for a forbidden address


async def test_fetching_can_be_turned_off(registry: FakeRegistry, web: str) -> None:
    async with running_gateway(registry, outbound_hosts=[web.removeprefix("http://")], fetch_images=False) as gateway:
        status, reply = await post(gateway, "/v1/chat/completions", {"messages": chat_of(f"{web}/a")})
        assert (status, reply["error"]["code"]) == (400, "unsupported_parameter")
        status, reply = await post(gateway, "/v1/chat/completions", {"messages": chat_of(DATA_URL)})
        assert status == 200


async def test_lists_show_which_models_have_vision(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        v1 = {each["id"]: each for each in (await http.get("/v1/models")).json()["data"]}
        v0 = {each["id"]: each["type"] for each in (await http.get("/api/v0/models")).json()["data"]}
        native = {each["key"]: each["capabilities"] for each in (await http.get("/api/v1/models")).json()["models"]}
    assert ("vision" in v1[KEY]["capabilities"], "vision" in v1[BLIND]["capabilities"]) == (True, False)
    assert v0 == {KEY: "vlm", BLIND: "llm"}
    assert (native[KEY]["vision"], native[BLIND]["vision"]) == (True, False)
