"""The channel on which a model answers."""

import asyncio
from typing import Any

from atelier.json_types import Json
from gateway.core.call import Call, Chat, Text, find_target
from gateway.core.events import Finished
from gateway.core.generation import Generation
from gateway.core.inference import Inference
from gateway.dialects.lmstudio_sdk.prediction_fragments import Fragments, progress_message, stats, stopped
from gateway.dialects.lmstudio_sdk.sdk_config import (
    fields_of,
    is_completion,
    load_fields,
    prediction_fields,
    prediction_wishes,
)
from gateway.dialects.lmstudio_sdk.sdk_context import Channel, Pulse
from gateway.dialects.lmstudio_sdk.sdk_errors import parsed
from gateway.dialects.lmstudio_sdk.sdk_frames import PredictParameter
from gateway.dialects.lmstudio_sdk.sdk_history import chat_messages, completion_text
from gateway.dialects.lmstudio_sdk.sdk_models import instance_info, meant_name, model_info
from gateway.fleet.watcher import Watcher

LOCAL_PRESET = "@local:"  # before the name in the identifiers of preset files


class Predictions:
    def __init__(self, inference: Inference, watcher: Watcher) -> None:
        self._inference = inference
        self._watcher = watcher

    async def predict(self, parameter: Any, channel: Channel) -> None:
        """One completion. A client that cancels gets it as far as it came."""
        asked = parsed(PredictParameter, parameter)
        name = channel.named.model = meant_name(asked.model_specifier, self._watcher.known(), channel.domain)
        call = predict_call(asked, name)
        channel.named.preset = call.preset or ""
        generation: Generation | None = None
        try:
            async with Pulse(channel, progress_message(0.0)) as pulse:
                generation = await self._inference.start(call, channel.origin, channel.account)
                await self._tell(generation, Fragments(structured=call.constraint is not None), pulse)
            end = generation.ends[0]
        except asyncio.CancelledError:
            if not channel.was_stopped():
                raise
            end = stopped(*(generation.prompt_tokens, generation.generated_tokens) if generation else (0, 0))
        finally:
            if generation is not None:
                generation.close()
        await channel.finish(self._success(name, asked, generation, end, channel))

    async def _tell(self, generation: Generation, fragments: Fragments, pulse: Pulse) -> None:
        while batch := await generation.next_batch():
            for message in fragments.messages(batch, generation.generated_tokens):
                await pulse.send(message)

    def _success(
        self, name: str, asked: PredictParameter, generation: Generation | None, end: Finished, channel: Channel
    ) -> Json:
        if generation is None:  # stopped while it waited for its model
            _, model = find_target(name, self._watcher.known())
            instance, settings = None, None
        else:
            model, instance, settings = generation.plan.model, generation.instance, generation.settings
        return {
            "type": "success",
            "stats": stats(end, instance, channel.account.seconds()),
            "modelInfo": instance_info(instance, model) if instance else model_info(model),
            "loadModelConfig": load_fields(instance, model) if instance else {"fields": []},
            "predictionConfig": prediction_fields(settings, fields_of(asked.prediction_config_stack)),
        }


def predict_call(asked: PredictParameter, name: str) -> Call:
    stack = asked.prediction_config_stack
    wishes = prediction_wishes(stack)
    completion = is_completion(stack)
    prompt = Text(completion_text(asked.history)) if completion else Chat.of(chat_messages(asked.history))
    preset = asked.fuzzy_preset_identifier
    return Call(
        model=name,
        prompts=[prompt],
        tools=None if completion else wishes.tools,
        settings=wishes.settings,
        constraint=wishes.constraint,
        prompt_progress=True,
        draft_model=wishes.draft_model,
        preset=preset.removeprefix(LOCAL_PRESET) if preset else None,
    )
