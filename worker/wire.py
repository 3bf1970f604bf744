"""Protobuf to the engine's types and back. Pure."""

from dataclasses import replace

import orjson

from atelier.errors import InvalidRequest, to_message
from atelier.generation_types import Finished, Statistics
from atelier.prompt_end import PromptEnd, check_final_message
from atelier.settings.groups import Load
from atelier.settings.settings_table import load_message, sampling_settings
from atelier.submission import (
    MOST_CHOICES,
    MOST_LOGPROBS,
    MOST_PRIORITY,
    read_constraint,
    read_echo,
    read_output_format,
    read_scales,
    read_tools,
)
from protos import inference_pb2 as pb
from worker.engine.chat_images import count_images
from worker.engine.interface import (
    Accepted,
    ChatPrompt,
    Deadlines,
    Delta,
    Description,
    Echoed,
    Event,
    Failed,
    InfillPrompt,
    Prompt,
    PromptProgress,
    Request,
    SequenceFigures,
    TokenLogprob,
)


def read_submit(submit: pb.Submit) -> Request:
    """The request in a Submit. Raises InvalidRequest when it is malformed."""
    sampling, stop = sampling_settings(submit.sampling)
    choices = submit.choices if submit.HasField("choices") else 1
    if not 1 <= choices <= MOST_CHOICES:
        raise InvalidRequest(f"n must be between 1 and {MOST_CHOICES}", param="n")
    if submit.logprobs > MOST_LOGPROBS:
        raise InvalidRequest(f"logprobs must be at most {MOST_LOGPROBS}", param="logprobs")
    if abs(submit.priority) > MOST_PRIORITY:
        raise InvalidRequest(f"priority must be between {-MOST_PRIORITY} and {MOST_PRIORITY}", param="priority")
    if submit.echo and submit.WhichOneof("prompt") not in ("text", "tokens"):
        raise InvalidRequest("Only a prompt of text or tokens can be echoed.", param="echo")
    return Request(
        prompt=_read_prompt(submit),
        sampling=sampling,
        stop=stop,
        constraint=read_constraint(submit),
        choices=choices,
        logprobs=submit.logprobs if submit.HasField("logprobs") else None,
        echo=read_echo(submit),
        prompt_progress=submit.prompt_progress,
        max_tokens_is_bound=submit.max_tokens_is_bound,
        lora=read_scales(submit),
        request_id=submit.request_id,
        fairness_key=submit.fairness_key,
        priority=submit.priority,
        deadlines=_read_deadlines(submit),
    )


def _read_deadlines(submit: pb.Submit) -> Deadlines:
    return Deadlines(
        end=submit.timeout_seconds if submit.HasField("timeout_seconds") else None,
        start=submit.queue_timeout_seconds if submit.HasField("queue_timeout_seconds") else None,
    )


def _read_prompt(submit: pb.Submit) -> Prompt:
    match submit.WhichOneof("prompt"):
        case "chat":
            return read_chat(submit.chat)
        case "text":
            return submit.text
        case "tokens":
            return list(submit.tokens.ids)
        case "infill":
            return InfillPrompt(submit.infill.prefix, submit.infill.suffix)
    raise InvalidRequest("The request has no prompt. Send messages, a text or tokens.", param="messages")


def read_chat(chat: pb.Chat) -> ChatPrompt:
    """Raises InvalidRequest if the messages are not a list of objects, lack images, or cannot be continued."""
    try:
        messages = orjson.loads(chat.messages_json)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The messages are not JSON: {error}", param="messages") from None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest("The messages must be a list of objects.", param="messages")
    if (parts := count_images(messages)) != len(chat.images):
        mismatch = f"The messages have {parts} image parts, but {len(chat.images)} images were sent."
        raise InvalidRequest(mismatch, param="messages")
    end = PromptEnd(chat.end)
    if end is PromptEnd.CONTINUED_MESSAGE:
        check_final_message(messages)
    return ChatPrompt(
        messages,
        chat.template if chat.HasField("template") else None,
        read_tools(chat),
        orjson.loads(chat.template_arguments_json or b"{}"),
        read_output_format(chat),
        tuple(chat.images),
        end,
        chat.parse_special,
    )


def event_message(call: int, event: Event) -> pb.Event:
    match event:
        case Delta(choice, text, tokens, logprobs, reasoning, tool_calls):
            delta = pb.Delta(text=text, tokens=tokens, reasoning=reasoning)
            for piece in tool_calls:
                delta.tool_calls.add(index=piece.index, id=piece.id, name=piece.name, arguments=piece.arguments)
            if logprobs:
                delta.logprobs.extend(map(_logprob_message, logprobs))
            return pb.Event(call=call, choice=choice, delta=delta)
        case Echoed(choice, text, logprobs):
            echoed = pb.Echoed(text=text, logprobs=map(_logprob_message, logprobs))
            return pb.Event(call=call, choice=choice, echoed=echoed)
        case Finished(choice, reason, stop_string, statistics):
            finished = pb.Finished(
                reason=pb.StopReason.ValueType(reason.value),
                stop_string=stop_string,
                statistics=_statistics_message(statistics),
            )
            return pb.Event(call=call, choice=choice, finished=finished)
        case Accepted(prompt_tokens, unenforced, dropped):
            accepted = pb.Accepted(
                prompt_tokens=prompt_tokens,
                unenforced=unenforced,
                dropped_messages=dropped.messages,
                dropped_tokens=dropped.tokens,
            )
            return pb.Event(call=call, accepted=accepted)
        case PromptProgress(prompt_tokens, cached_tokens, done_tokens):
            progress = pb.PromptProgress(
                prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, done_tokens=done_tokens
            )
            return pb.Event(call=call, prompt_progress=progress)
        case Failed(error):
            return pb.Event(call=call, failed=pb.Failed(error=to_message(error)))


def _logprob_message(logprob: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        id=logprob.id, piece=logprob.piece, logprob=logprob.logprob, top=map(_logprob_message, logprob.top)
    )


def _statistics_message(statistics: Statistics) -> pb.Statistics:
    return pb.Statistics(**{name: getattr(statistics, name) for name in Statistics.__slots__})


def sequence_message(figures: SequenceFigures) -> pb.Sequence:
    return pb.Sequence(
        request_id=figures.request_id,
        choice=figures.choice,
        state=pb.SequenceState.ValueType(figures.state.value),
        priority=figures.priority,
        prompt_tokens=figures.prompt_tokens,
        done_tokens=figures.done_tokens,
        cached_tokens=figures.cached_tokens,
        predicted_tokens=figures.predicted_tokens,
        age_seconds=figures.age_seconds,
    )


def description_message(instance_id: str, load: Load, description: Description) -> pb.WorkerDescription:
    return pb.WorkerDescription(
        instance_id=instance_id,
        engine=description.engine,
        engine_version=description.version,
        load=load_message(replace(load, speculation=description.speculation)),
        context_length=description.context_length,
        parallel=description.parallel,
        gpu_layers=description.gpu_layers,
        devices=description.devices,
        vocabulary_size=description.vocabulary_size,
        embedding_length=description.embedding_length,
        can_generate=description.can_generate,
        can_embed=description.can_embed,
        can_infill=description.can_infill,
        can_rerank=description.can_rerank,
        can_see=description.can_see,
        chat_template=description.chat_template,
    )
