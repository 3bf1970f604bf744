"""Ollama's routes: parse, one call, render."""

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar, Literal

from starlette.requests import Request
from starlette.responses import Response

from atelier import __version__
from atelier.errors import Conflict, DiskFull, InvalidRequest, ModelNotFound
from atelier.names import InstanceName, ModelName
from gateway.core.call import Call, EmbedCall, Embeddings
from gateway.core.call_plan import reported_name
from gateway.core.generation import Generation
from gateway.core.inference import InferenceCore
from gateway.core.unary import Unary
from gateway.dialects.body import read_body
from gateway.dialects.ollama.keep_alive import ModelLoader, idle_seconds, requests_unload
from gateway.dialects.ollama.ollama_calls import chat_call, generate_call, model_name
from gateway.dialects.ollama.ollama_model_list import (
    OllamaModel,
    OllamaProcesses,
    OllamaTags,
    process_object,
    show_object,
    tag_object,
)
from gateway.dialects.ollama.ollama_names import find_target, full_name, model_of
from gateway.dialects.ollama.ollama_pull import SUCCESS, OllamaProgress, ProgressStream, Pulls
from gateway.dialects.ollama.ollama_replies import (
    OllamaChat,
    OllamaGeneration,
    OllamaVector,
    OllamaVectors,
    OllamaVersion,
    PartBuilder,
    chat_part,
    done_facts,
    generate_part,
    logprob_list,
    nanoseconds,
    reply_object,
    whole_part,
)
from gateway.dialects.ollama.ollama_requests import (
    Generating,
    KeepAlive,
    OllamaChatBody,
    OllamaEmbedBody,
    OllamaEmbeddingsBody,
    OllamaGenerateBody,
    OllamaModelBody,
    OllamaPullBody,
)
from gateway.dialects.ollama.ollama_stream import LineRenderer, LineStream
from gateway.dialects.reply import account_of, answer_headers, json_response, origin_of
from gateway.dialects.route import HI, HUB, INFERENCE, LINES, MODEL, Route
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.snapshot import LOADED
from gateway.fleet.watcher import Watcher
from gateway.http.streaming import while_connected

API_VERSION = "0.12.11"  # the version of Ollama's API that this one follows; clients check it before using a feature


class OllamaRoutes:
    tag: ClassVar[str] = "Ollama"

    def __init__(
        self,
        inference: InferenceCore,
        unary: Unary,
        watcher: Watcher,
        catalogue: Catalogue,
        control: Control,
        loader: ModelLoader,
        pulls: Pulls,
    ) -> None:
        self._inference = inference
        self._unary = unary
        self._watcher = watcher
        self._catalogue = catalogue
        self._control = control
        self._loader = loader
        self._pulls = pulls

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /api/chat",
                self.chat,
                "Answer a chat (Ollama)",
                body=OllamaChatBody,
                request={"model": MODEL, "messages": HI, "stream": False},
                errors=INFERENCE,
                reply=OllamaChat,
                events=OllamaChat,
                stream=LINES,
            ),
            Route(
                "POST /api/generate",
                self.generate,
                "Answer a prompt (Ollama)",
                body=OllamaGenerateBody,
                request={"model": MODEL, "prompt": "Hi", "stream": False},
                errors=INFERENCE,
                reply=OllamaGeneration,
                events=OllamaGeneration,
                stream=LINES,
            ),
            Route(
                "POST /api/embed",
                self.embed,
                "Compute embeddings of texts (Ollama)",
                body=OllamaEmbedBody,
                request={"model": "nomic-embed-text-v1.5", "input": ["a fjord"]},
                errors=INFERENCE,
                reply=OllamaVectors,
            ),
            Route(
                "POST /api/embeddings",
                self.embeddings,
                "Compute the embedding of one text (Ollama, earlier form)",
                body=OllamaEmbeddingsBody,
                request={"model": "nomic-embed-text-v1.5", "prompt": "a fjord"},
                errors=INFERENCE,
                reply=OllamaVector,
            ),
            Route("GET /api/tags", self.tags, "List the available models (Ollama)", reply=OllamaTags),
            Route(
                "POST /api/show",
                self.show,
                "Show a model's details (Ollama)",
                body=OllamaModelBody,
                request={"model": MODEL},
                errors=(ModelNotFound,),
                reply=OllamaModel,
            ),
            Route("GET /api/ps", self.processes, "List the loaded models (Ollama)", reply=OllamaProcesses),
            Route(
                "POST /api/pull",
                self.pull,
                "Download a model from the hub (Ollama)",
                body=OllamaPullBody,
                request={"model": "hf.co/bartowski/Qwen3-0.6B-GGUF:Q4_K_M", "stream": False},
                errors=(*HUB, DiskFull),
                reply=OllamaProgress,
                events=OllamaProgress,
                stream=LINES,
            ),
            Route(
                "DELETE /api/delete",
                self.delete,
                "Delete a model (Ollama)",
                body=OllamaModelBody,
                request={"model": MODEL},
                errors=(ModelNotFound, Conflict),
                media=None,
            ),
            Route("GET /api/version", self.version, "The supported version of Ollama's API", reply=OllamaVersion),
            Route("HEAD /", self.head, "Check that a server is running (Ollama)", media=None),
        )

    async def chat(self, request: Request) -> Response:
        body = await read_body(request, OllamaChatBody)
        if not body.messages:
            return await self._load_or_unload(request, body, chat_part)
        return await self._answer(request, body, chat_call(body, self._name(body.model)), chat_part)

    async def generate(self, request: Request) -> Response:
        body = await read_body(request, OllamaGenerateBody)
        call = generate_call(body, self._name(body.model))
        if not (body.prompt or body.suffix or body.images):
            return await self._load_or_unload(request, body, generate_part)
        return await self._answer(request, body, call, generate_part)

    async def embed(self, request: Request) -> Response:
        body = await read_body(request, OllamaEmbedBody)
        texts = [body.input] if isinstance(body.input, str) and body.input else body.input or []
        found, load_seconds = await self._embed(request, body.model, list(texts), body.keep_alive, body.dimensions)
        account = account_of(request)

        def rendered() -> Response:
            reply: OllamaVectors = {
                "model": found.model,
                "embeddings": [list(vector) for vector in found.vectors],
                "total_duration": nanoseconds(account.seconds()),
                "load_duration": nanoseconds(load_seconds),
                "prompt_eval_count": found.prompt_tokens,
            }
            return json_response(reply)

        # Encoding thousands of vectors takes long: in a thread it does not delay the streams.
        return await asyncio.to_thread(rendered)

    async def embeddings(self, request: Request) -> Response:
        body = await read_body(request, OllamaEmbeddingsBody)
        texts = [body.prompt] if body.prompt else []
        found, _ = await self._embed(request, body.model, texts, body.keep_alive, None)
        reply: OllamaVector = {"embedding": list(found.vectors[0]) if found.vectors else []}
        return json_response(reply)

    async def tags(self, request: Request) -> Response:
        reply: OllamaTags = {"models": [tag_object(*entry) for entry in self._catalogue.served()]}
        return json_response(reply)

    async def show(self, request: Request) -> Response:
        body = await read_body(request, OllamaModelBody)
        model = model_of(model_name(body), self._watcher.known())
        return json_response(show_object(model, await self._control.describe_model(model.key)))

    async def processes(self, request: Request) -> Response:
        snapshot, now = self._watcher.snapshot, time.time()
        loaded = [each for _, each in sorted(snapshot.instances.items()) if each.state in LOADED]
        reply: OllamaProcesses = {"models": [process_object(each, snapshot.model_of(each), now) for each in loaded]}
        return json_response(reply)

    async def delete(self, request: Request) -> Response:
        body = await read_body(request, OllamaModelBody)
        target = self._target(model_name(body))
        if isinstance(target, InstanceName):
            message = f'model: "{target.id}" is an instance; name the model to delete it'
            raise InvalidRequest(message, param="model")
        await self._control.remove_model(target.key)
        return Response()

    async def pull(self, request: Request) -> Response:
        body = await read_body(request, OllamaPullBody)
        async with while_connected(request.receive):
            progress = await self._pulls.start(model_name(body))
            if body.stream is not False:
                return ProgressStream(progress)
            async for _ in progress:
                pass
        return json_response(SUCCESS)

    async def version(self, request: Request) -> Response:
        reply: OllamaVersion = {"version": API_VERSION, "atelier": __version__}
        return json_response(reply)

    async def head(self, request: Request) -> Response:
        """Ollama's own command line detects a server by this request."""
        return Response()

    async def _answer(self, request: Request, body: Generating, call: Call, part: PartBuilder) -> Response:
        thinking, account = body.think is not False, account_of(request)
        async with while_connected(request.receive):
            generation = await self._begin(request, body, call)
            if body.stream is not False:
                renderer = LineRenderer(generation.plan.name, part, account, thinking=thinking)
                return LineStream(generation, renderer, answer_headers(request, generation))
            load_seconds = account.seconds()
            try:
                (completion,) = await generation.collect()
                facts = done_facts(completion.finished, account.seconds(), load_seconds)
                if completion.logprobs is not None:
                    facts["logprobs"] = logprob_list(completion.logprobs)
                whole = whole_part(part, completion, thinking=thinking)
                reply = reply_object(generation.plan.name, whole, facts, done=True)
                return json_response(reply, answer_headers(request, generation))
            finally:
                generation.close()

    async def _begin(self, request: Request, body: Generating, call: Call) -> Generation:
        generation = await self._inference.start(call, origin_of(request), account_of(request))
        try:
            check_context(body, generation)
        except InvalidRequest:
            generation.close()
            raise
        return generation

    async def _load_or_unload(self, request: Request, body: Generating, part: PartBuilder) -> Response:
        """The reply to a request without a prompt."""
        target, request_id = self._target(body.model), account_of(request).request_id
        reason: Literal["load", "unload"] = "unload" if requests_unload(body.keep_alive) else "load"
        async with while_connected(request.receive):
            if reason == "unload":
                await self._loader.unload(target)
            else:
                await self._loader.load(target, request_id, idle_seconds(body.keep_alive))
        return json_response(reply_object(reported_name(target), part("", "", ()), {"done_reason": reason}, done=True))

    async def _embed(
        self, request: Request, model: str, texts: list[str], keep_alive: KeepAlive | None, dimensions: int | None
    ) -> tuple[Embeddings, float]:
        """The vectors, and the seconds until the model was loaded. Without texts it is only loaded."""
        target, account = self._target(model), account_of(request)
        async with while_connected(request.receive):
            await self._loader.load(target, account.request_id, idle_seconds(keep_alive))
            load_seconds = account.seconds()
            name = reported_name(target)
            if not texts:
                return Embeddings(name, [], 0), load_seconds
            call = EmbedCall(model=name, texts=texts, dimensions=dimensions)
            return await self._unary.embed(call, origin_of(request), account), load_seconds

    def _target(self, name: str) -> ModelName | InstanceName:
        return find_target(name, self._watcher.known())

    def _name(self, name: str) -> str:
        return full_name(name, self._watcher.known())


def check_context(body: Generating, generation: Generation) -> None:
    """Raises InvalidRequest if the client requests a longer context than the instance has and the model supports it.

    Ollama would reload the model, and so interrupt its other clients.
    """
    requested = body.options.num_ctx if body.options else None
    instance, model = generation.instance, generation.plan.model
    if requested is None or instance.context_length >= min(requested, model.max_context_length or requested):
        return
    raise InvalidRequest(
        f"options.num_ctx: {instance.id} is loaded with a context of {instance.context_length} tokens. Load it with "
        f"more (atelier load {model.key} --context-length {requested}), or leave num_ctx out.",
        param="options.num_ctx",
    )
