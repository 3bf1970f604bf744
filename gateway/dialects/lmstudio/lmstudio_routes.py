"""LM Studio's routes: parse, one call, render."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import AlreadyExists, InstanceNotFound, LoadFailed, ModelNotFound
from atelier.names import check_identifier
from gateway.dialects.body import read_body
from gateway.dialects.lmstudio.lmstudio_model_list import (
    LoadReply,
    UnloadReply,
    V0Model,
    V0ModelList,
    V1ModelList,
    estimate_reply,
    load_reply,
    load_settings,
    v0_model,
    v1_models,
)
from gateway.dialects.lmstudio.lmstudio_requests import LoadBody, UnloadBody, V0ChatBody, V0CompletionBody
from gateway.dialects.lmstudio.lmstudio_v0 import (
    V0Chat,
    V0ChatChunk,
    V0Completion,
    V0CompletionChunk,
    continuing,
    end_facts,
    openai_body,
)
from gateway.dialects.openai.embeddings_and_tokens import EmbeddingBody, Vectors
from gateway.dialects.openai.openai_completions import Completions
from gateway.dialects.reply import account_of, json_response
from gateway.dialects.route import HI, HOSTED, INFERENCE, MODEL, Endpoint, Route
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.registry_client import LoadOptions
from gateway.http.streaming import while_connected


class LMStudioRoutes:
    tag: ClassVar[str] = "LM Studio"

    def __init__(self, completions: Completions, catalogue: Catalogue, control: Control, embeddings: Endpoint) -> None:
        """`embeddings`: OpenAI's endpoint."""
        self._embeddings = embeddings
        self._completions = completions
        self._catalogue = catalogue
        self._control = control

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /api/v0/chat/completions",
                self.v0_chat_completions,
                "Answer a chat, with statistics (LM Studio v0)",
                body=V0ChatBody,
                request={"model": MODEL, "messages": HI, "max_tokens": 32},
                errors=HOSTED,
                reply=V0Chat,
                events=V0ChatChunk,
            ),
            Route(
                "POST /api/v0/completions",
                self.v0_completions,
                "Continue a text, with statistics (LM Studio v0)",
                body=V0CompletionBody,
                request={"model": MODEL, "prompt": "The capital of Norway is", "max_tokens": 4},
                errors=INFERENCE,
                reply=V0Completion,
                events=V0CompletionChunk,
            ),
            Route(
                "POST /api/v0/embeddings",
                self._embeddings,
                "Compute embeddings of texts (LM Studio v0)",
                body=EmbeddingBody,
                request={"model": "nomic-embed-text-v1.5", "input": ["a fjord", "a mountain"]},
                errors=INFERENCE,
                reply=Vectors,
            ),
            Route("GET /api/v0/models", self.v0_list_models, "List all models (LM Studio v0)", reply=V0ModelList),
            Route(
                "GET /api/v0/models/{id:path}",
                self.v0_get_model,
                "One model (LM Studio v0)",
                errors=(ModelNotFound,),
                reply=V0Model,
            ),
            Route("GET /api/v1/models", self.v1_list_models, "List all models (LM Studio v1)", reply=V1ModelList),
            Route(
                "POST /api/v1/models/load",
                self.v1_load,
                "Load one more instance of a model (LM Studio v1)",
                body=LoadBody,
                request={"model": MODEL, "context_length": 2048},
                errors=(ModelNotFound, AlreadyExists, LoadFailed),
                reply=LoadReply,
            ),
            Route(
                "POST /api/v1/models/unload",
                self.v1_unload,
                "Unload an instance (LM Studio v1)",
                body=UnloadBody,
                request={"instance_id": "huggingfacetb/smollm2-135m-instruct:2"},
                errors=(InstanceNotFound,),
                reply=UnloadReply,
            ),
        )

    async def v0_chat_completions(self, request: Request) -> Response:
        body = continuing(openai_body(await read_body(request, V0ChatBody)))
        return await self._completions.chat(request, body, partial(end_facts, account_of(request)))

    async def v0_completions(self, request: Request) -> Response:
        body = openai_body(await read_body(request, V0CompletionBody))
        return await self._completions.text(request, body, partial(end_facts, account_of(request)))

    async def v0_list_models(self, request: Request) -> Response:
        snapshot = self._catalogue.snapshot
        entries = [v0_model(model, snapshot) for _, model in sorted(snapshot.models.items())]
        reply: V0ModelList = {"object": "list", "data": entries}
        return json_response(reply)

    async def v0_get_model(self, request: Request) -> Response:
        _, model = self._catalogue.find(request.path_params["id"])
        return json_response(v0_model(model, self._catalogue.snapshot))

    async def v1_list_models(self, request: Request) -> Response:
        return json_response(v1_models(self._catalogue.snapshot))

    async def v1_load(self, request: Request) -> Response:
        body = await read_body(request, LoadBody)
        identifier = check_identifier(body.identifier) if body.identifier is not None else None
        model = self._catalogue.find_model(body.model)
        if body.estimate_only:
            estimate = await self._control.estimate(model.key, load_settings(body), body.preset)
            return json_response(estimate_reply(model, estimate))
        async with while_connected(request.receive):
            options = LoadOptions(identifier, body.preset, body.ttl)
            instance = await self._control.load(model.key, options, load_settings(body), account_of(request).request_id)
        return json_response(load_reply(instance, model, echo=bool(body.echo_load_config)))

    async def v1_unload(self, request: Request) -> Response:
        body = await read_body(request, UnloadBody)
        instance = self._catalogue.find_instance(body.instance_id)
        await self._control.unload(instance.id)
        reply: UnloadReply = {"instance_id": instance.id}
        return json_response(reply)
