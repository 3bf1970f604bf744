"""LM Studio's routes: parse, one call, render."""

from starlette.requests import Request
from starlette.responses import Response

from atelier.json_types import Json
from atelier.names import check_identifier
from gateway.core.answer import Answering
from gateway.core.events import Completion
from gateway.core.inference import Inference
from gateway.dialects.body import read_body
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
from gateway.dialects.openai.best_of import best_choices
from gateway.dialects.openai.hosted_chat import HostedChat
from gateway.dialects.openai.openai_stream import ChunkRenderer, chat_head, chat_renderer, text_head, text_renderer
from gateway.dialects.openai.openai_tools import called_by_older_form, uses_servers
from gateway.dialects.openai.openai_translation import chat_choices, echoes, text_choices, usage, wants_usage
from gateway.dialects.reply import account_of, json_response, stream_answer, whole_answer
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.registry_client import LoadWish
from gateway.http.disconnect import while_connected


class LMStudioRoutes:
    def __init__(self, inference: Inference, hosted: HostedChat, catalogue: Catalogue, control: Control) -> None:
        self._inference = inference
        self._hosted = hosted
        self._catalogue = catalogue
        self._control = control

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
            wish = LoadWish(identifier, body.preset, body.ttl)
            instance = await self._control.load(model.key, wish, load_settings(body), account_of(request).request_id)
        return json_response(load_reply(instance, model, echo=bool(body.echo_load_config)))

    async def v1_unload(self, request: Request) -> Response:
        body = await read_body(request, UnloadBody)
        instance = self._catalogue.find_instance(body.instance_id)
        await self._control.unload(instance.id)
        return json_response({"instance_id": instance.id})
