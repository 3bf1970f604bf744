"""LM Studio's routes: parse, one call, render."""

from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import AlreadyExists, InstanceNotFound, LoadFailed, ModelNotFound
from atelier.json_types import Json
from atelier.names import check_identifier
from gateway.core.answer import Answering
from gateway.core.events import Completion
from gateway.core.inference import Inference
from gateway.dialects.body import read_body
from gateway.dialects.lmstudio.lmstudio_reply_types import (
    LoadReply,
    UnloadReply,
    V0Chat,
    V0ChatChunk,
    V0Completion,
    V0CompletionChunk,
    V0Model,
    V0ModelList,
    V1ModelList,
)
from gateway.dialects.lmstudio.lmstudio_requests import LoadBody, UnloadBody, V0ChatBody, V0CompletionBody
from gateway.dialects.lmstudio.lmstudio_translation import (
    end_facts,
    estimate_reply,
    first_end,
    load_reply,
    load_settings,
    v0_chat_call,
    v0_completion_call,
    v0_model,
    v1_model,
    with_limit,
)
from gateway.dialects.openai.hosted_chat import HostedChat
from gateway.dialects.openai.openai_calls import called_by_older_form, echoes, uses_servers, wants_usage
from gateway.dialects.openai.openai_logprobs import best_choices
from gateway.dialects.openai.openai_replies import chat_choices, text_choices, usage
from gateway.dialects.openai.openai_stream import ChunkRenderer, chat_head, chat_renderer, text_head, text_renderer
from gateway.dialects.openai.text_encoding import EmbeddingBody, Vectors
from gateway.dialects.reply import account_of, json_response, stream_answer, whole_answer
from gateway.dialects.route import HI, HOSTED, INFERENCE, MODEL, Endpoint, Route
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.registry_client import LoadOptions
from gateway.http.disconnect import while_connected


class LMStudioRoutes:
    tag: ClassVar[str] = "LM Studio"

    def __init__(
        self, inference: Inference, hosted: HostedChat, catalogue: Catalogue, control: Control, embeddings: Endpoint
    ) -> None:
        """`embeddings`: OpenAI's endpoint."""
        self._embeddings = embeddings
        self._inference = inference
        self._hosted = hosted
        self._catalogue = catalogue
        self._control = control

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /api/v0/chat/completions",
                self.v0_chat_completions,
                "Answer a chat, with statistics",
                body=V0ChatBody,
                request={"model": MODEL, "messages": HI, "max_tokens": 32},
                errors=HOSTED,
                reply=V0Chat,
                events=V0ChatChunk,
            ),
            Route(
                "POST /api/v0/completions",
                self.v0_completions,
                "Continue a text, with statistics",
                body=V0CompletionBody,
                request={"model": MODEL, "prompt": "The capital of Norway is", "max_tokens": 4},
                errors=INFERENCE,
                reply=V0Completion,
                events=V0CompletionChunk,
            ),
            Route(
                "POST /api/v0/embeddings",
                self._embeddings,
                "Texts to vectors (LM Studio v0)",
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
                "Load a model: one more instance",
                body=LoadBody,
                request={"model": MODEL, "context_length": 2048},
                errors=(ModelNotFound, AlreadyExists, LoadFailed),
                reply=LoadReply,
            ),
            Route(
                "POST /api/v1/models/unload",
                self.v1_unload,
                "Unload an instance",
                body=UnloadBody,
                request={"instance_id": "huggingfacetb/smollm2-135m-instruct:2"},
                errors=(InstanceNotFound,),
                reply=UnloadReply,
            ),
        )

    async def v0_chat_completions(self, request: Request) -> Response:
        body = await read_body(request, V0ChatBody)
        account = account_of(request)
        if uses_servers(body):
            return await self._hosted.answer(
                request, with_limit(body), lambda loop, finished: end_facts(loop, account, finished)
            )

        def whole(generation: Answering, completions: list[Completion]) -> Json:
            head = chat_head(generation.plan.name, stream=False)
            more = end_facts(generation, account, first_end(completions))
            choices = chat_choices(completions, older_calls=called_by_older_form(body))
            return head.with_choices(choices, usage=usage(generation), **more)

        def renderer(generation: Answering) -> ChunkRenderer:
            return chat_renderer(
                chat_head(generation.plan.name, stream=True),
                generation.plan.choices,
                include_usage=wants_usage(body),
                at_end=lambda finished: end_facts(generation, account, finished),
                older_calls=called_by_older_form(body),
            )

        if body.stream:
            return await stream_answer(request, self._inference, v0_chat_call(body), renderer)
        return await whole_answer(request, self._inference, v0_chat_call(body), whole)

    async def v0_completions(self, request: Request) -> Response:
        body = await read_body(request, V0CompletionBody)
        call, account = v0_completion_call(body), account_of(request)
        openings = echoes(body, call)

        def whole(generation: Answering, completions: list[Completion]) -> Json:
            more = end_facts(generation, account, first_end(completions))
            choices = text_choices(best_choices(body, completions), openings)
            return text_head(generation.plan.name).with_choices(choices, usage=usage(generation), **more)

        def renderer(generation: Answering) -> ChunkRenderer:
            return text_renderer(
                text_head(generation.plan.name),
                generation.plan.choices,
                include_usage=wants_usage(body),
                openings=openings,
                at_end=lambda finished: end_facts(generation, account, finished),
            )

        if body.stream:
            return await stream_answer(request, self._inference, call, renderer)
        return await whole_answer(request, self._inference, call, whole)

    async def v0_list_models(self, request: Request) -> Response:
        snapshot = self._catalogue.snapshot
        entries = [v0_model(model, snapshot) for _, model in sorted(snapshot.models.items())]
        return json_response({"object": "list", "data": entries})

    async def v0_get_model(self, request: Request) -> Response:
        _, model = self._catalogue.find(request.path_params["id"])
        return json_response(v0_model(model, self._catalogue.snapshot))

    async def v1_list_models(self, request: Request) -> Response:
        snapshot = self._catalogue.snapshot
        return json_response({"models": [v1_model(model, snapshot) for _, model in sorted(snapshot.models.items())]})

    async def v1_load(self, request: Request) -> Response:
        body = await read_body(request, LoadBody)
        identifier = check_identifier(body.identifier) if body.identifier is not None else None
        model = self._catalogue.find_model(body.model)
        if body.estimate_only:
            estimate = await self._control.estimate(model.key, load_settings(body), body.preset)
            return json_response(estimate_reply(model, estimate))
        async with while_connected(request.receive):
            wish = LoadOptions(identifier, body.preset, body.ttl)
            instance = await self._control.load(model.key, wish, load_settings(body), account_of(request).request_id)
        return json_response(load_reply(instance, model, echo=bool(body.echo_load_config)))

    async def v1_unload(self, request: Request) -> Response:
        body = await read_body(request, UnloadBody)
        instance = self._catalogue.find_instance(body.instance_id)
        await self._control.unload(instance.id)
        return json_response({"instance_id": instance.id})
