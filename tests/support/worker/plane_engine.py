"""An engine in this process whose model places images in rows and columns (M-RoPE), and libmtmd's own way beside it."""

import ctypes
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as ll
from llama_cpp import mtmd_cpp as mtmd

from atelier.generation_types import Finished
from atelier.launch import LaunchSpec
from atelier.settings import Load
from atelier.settings.groups import Inference
from tests.support.models.tiny_llama import write_tiny_llama
from tests.support.models.tiny_projector import PLANES, write_tiny_projector
from worker.engine.batching.sequence import Sequence, Ticket
from worker.engine.chat_images import decode_picture
from worker.engine.interface import ChatPrompt, Delta, Failed, Request, Source
from worker.engine.model.context import FLASH, Context, generation_params
from worker.engine.model.loaded_model import LlamaLog, LoadedModel
from worker.engine.model.projector import ImageLimits, Projector
from worker.engine.model_loading import load_model
from worker.engine.prompt.prompt_preparation import Prepared

TOKENS = 24  # of a completion
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
MOST_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text in which each "@" stands for one of the images."""

    text: str
    images: tuple[bytes, ...] = ()

    @property
    def chat(self) -> ChatPrompt:
        first, *others = ({"type": "text", "text": text} for text in self.text.split("@"))
        parts: list[dict[str, str]] = [first]
        for other in others:
            parts += [{"type": "image"}, other]
        return ChatPrompt([{"role": "user", "content": parts}], template=TEMPLATE, images=self.images)


@dataclass(slots=True)
class Completion:
    tokens: list[int]
    logprobs: list[float]
    cached: int = 0  # tokens of the prompt
    prompt: int = 0


class PlaneEngine:
    """`close` frees it."""

    def __init__(self, folder: Path, kind: str, *, parallel: int = 3, **load: Any) -> None:
        """`kind`: of projector, one of PLANES."""
        self._load = Load(
            context_length=512, parallel=parallel, device="cpu", threads=1, **{"reproducible": True, **load}
        )
        model = write_tiny_llama(folder / "tiny.gguf", architecture=PLANES[kind], quantised=True)
        self._projector = str(write_tiny_projector(folder / "mmproj.gguf", 32, kind=kind))
        self._log = LlamaLog()
        spec = LaunchSpec(
            instance_id="test/model",
            engine="llama",
            model_path=str(model),
            projector_path=self._projector,
            load=self._load,
            address="",
            token="",
            grace_seconds=60,
        )
        self._loaded = load_model(spec, self._log, lambda _: True)
        self._calls: list[Completion] = []

    def complete(self, *prompts: Prompt) -> list[Completion]:
        """Greedily, all prompts at once."""
        batcher = self._loaded.batcher
        assert batcher is not None
        completions = []
        for prompt in prompts:
            ticket = Ticket(Source(0, len(self._calls)), 1)
            self._calls.append(Completion([], []))
            completions.append(self._calls[-1])
            batcher.add([Sequence(ticket, 0, self.prepare(prompt), 0, self._loaded.model.vocabulary)])
        for _ in range(MOST_STEPS):
            if batcher.idle:
                return completions
            for source, event in batcher.step():
                _note(self._calls[source.call], event)
        raise AssertionError("the completions do not end")

    def prepare(self, prompt: Prompt) -> Prepared:
        sampling = Inference(temperature=0.0, max_tokens=TOKENS, repeat_penalty=1.0)
        preparer = self._loaded.preparer
        return preparer.encode(preparer.prepare(Request(prompt.chat, sampling, logprobs=0)))

    @contextmanager
    def context(self) -> Iterator[Context]:
        """Another one on the same model."""
        params = generation_params(self._load, on_gpu=False)
        with closing(Context(self._loaded.model, params, self._log)) as context:
            yield context

    def reference(self, prompt: Prompt) -> Completion:
        """The completion by libmtmd's own helper and one llama_decode per token."""
        model = self._loaded.model
        room = ImageLimits(self._load.ubatch_size, self._load.ubatch_size, self._load.context_length)
        projector = Projector(
            self._projector, model, self._log, room, threads=1, flash=FLASH[self._load.flash_attention]
        )
        with closing(projector), self.context() as context:
            return _continue(model, context, read_prompt(projector, context, prompt))

    def close(self) -> None:
        self._loaded.close()


def _note(call: Completion, event: Any) -> None:
    match event:
        case Delta():
            call.tokens += [each.id for each in event.logprobs]
            call.logprobs += [each.logprob for each in event.logprobs]
        case Finished():
            call.cached = event.statistics.cached_tokens
            call.prompt = event.statistics.prompt_tokens
        case Failed(error):
            raise error


def read_prompt(projector: Projector, context: Context, prompt: Prompt) -> int:
    """Read a prompt into sequence 0 by libmtmd's own helper; the position after it."""
    data = prompt.text.replace("@", projector.marker).encode()
    given = mtmd.mtmd_input_text(data, len(data), True, True)
    bitmaps = [_bitmap(encoded) for encoded in prompt.images]
    chunks = mtmd.mtmd_input_chunks_init()
    array = (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
    assert mtmd.mtmd_tokenize(projector._handle, chunks, ctypes.byref(given), array, len(bitmaps)) == 0
    past = ll.llama_pos()
    arguments = (projector._handle, context.handle, chunks, 0, 0, 512, True, ctypes.byref(past))
    assert mtmd.mtmd_helper_eval_chunks(*arguments) == 0
    mtmd.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        mtmd.mtmd_bitmap_free(bitmap)
    return int(past.value)


def _bitmap(encoded: bytes) -> Any:
    picture = decode_picture(encoded, 1)
    pixels = (ctypes.c_uint8 * len(picture.rgb)).from_buffer_copy(picture.rgb)
    return mtmd.mtmd_bitmap_init(picture.width, picture.height, pixels)


def _continue(model: LoadedModel, context: Context, position: int) -> Completion:
    completion = Completion([], [])
    while True:
        logits = last_logits(context, model.vocabulary.size)
        token = int(np.argmax(logits))
        if model.vocabulary.is_end(token):
            return completion
        completion.tokens.append(token)
        completion.logprobs.append(-float(np.log(np.exp(logits - logits[token]).sum())))
        if len(completion.tokens) == TOKENS:
            return completion
        tokens, places = (ll.llama_token * 1)(token), (ll.llama_pos * 1)(position)
        batch = ll.llama_batch_get_one(tokens, 1)
        batch.pos = places
        assert ll.llama_decode(context.handle, batch) == 0
        position += 1


def last_logits(context: Context, size: int) -> Any:
    return np.ctypeslib.as_array(ll.llama_get_logits_ith(context.handle, -1), shape=(size,)).copy()


def same(ours: Seq[Completion], theirs: Seq[Completion]) -> bool:
    """Whether the tokens are the same, and their log-probabilities as close as rounding allows."""
    return all(
        one.tokens == other.tokens and np.allclose(one.logprobs, other.logprobs, atol=1e-3)
        for one, other in zip(ours, theirs, strict=True)
    )
