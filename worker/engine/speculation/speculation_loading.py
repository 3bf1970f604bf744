"""Opens the drafter that a model's load settings ask for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import structlog

from atelier.errors import LoadFailed
from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from atelier.settings.resolution import draft_load
from worker.engine.model.context import Threads, open_context
from worker.engine.model.decode_costs import Costs
from worker.engine.model.loaded_model import LlamaLog, LoadedModel
from worker.engine.speculation.answer_pool import AnswerPool
from worker.engine.speculation.draft_model import DraftModel, shared_size
from worker.engine.speculation.drafting import Drafter
from worker.engine.speculation.prompt_lookup import LookupDrafter
from worker.engine.speculation.speculation import Speculation
from worker.engine.speculation.step_times import StepTimes

AUTO = "auto"
DRAFT_HEADS_UNUSED = (
    "The model has draft heads of its own (MTP), which llama.cpp's public interface does not offer yet: "
    "use speculation auto, or draft_model with a smaller model of its family."
)

_log = structlog.get_logger(__name__)


def usable_speculation(model: LoadedModel, load: Load) -> str:
    """The speculation of the settings, with `auto` replaced where the model supports none.

    Raises LoadFailed when they name one and the model does not support it.
    """
    if model.draft_heads:
        _log.info("draft_heads_unused", layers=model.draft_heads, reason=DRAFT_HEADS_UNUSED)
    if load.speculation == "off" or (obstacle := _obstacle(model)) is None:
        return load.speculation
    if load.speculation == AUTO:
        _log.info("speculation_off", reason=obstacle)
        return "off"
    raise LoadFailed(f"{obstacle}: load it with speculation off.")


def _obstacle(model: LoadedModel) -> str | None:
    """Why the model cannot use speculation."""
    if model.only_embeds:
        return "This model completes no prompts, so it cannot use speculation"
    if not model.can_cut:
        return (
            "This model keeps a recurrent state or a sliding window, from which a rejected draft token cannot be "
            "removed (from a sliding window it can, with swa_full and without kv_unified)"
        )
    return None


def open_speculation(
    spec: LaunchSpec,
    model: LoadedModel,
    times: StepTimes,
    log: LlamaLog,
    on_progress: Callable[[float], bool],
    opened: ExitStack,
) -> Speculation | None:
    """The drafter of the settings, if they name one; closed with `opened`. Raises LoadFailed."""
    drafter: Drafter
    match spec.load.speculation:
        case "auto":
            drafter = LookupDrafter(AnswerPool())
        case "prompt_lookup":
            drafter = LookupDrafter()
        case "draft_model":
            drafter = _open_draft_model(spec, model, times.costs, log, on_progress, opened)
        case _:
            return None
    return Speculation(drafter, spec.load.draft_tokens, times)


def _open_draft_model(
    spec: LaunchSpec,
    model: LoadedModel,
    costs: Costs,
    log: LlamaLog,
    on_progress: Callable[[float], bool],
    opened: ExitStack,
) -> DraftModel:
    load = draft_load(spec.load)
    if spec.draft_model_path is None:
        raise LoadFailed("speculation draft_model needs a draft_model: name one.")
    # It is small beside the model, whose load has reported all progress: the callback only tells whether to give up.
    with _named():
        draft = opened.enter_context(closing(LoadedModel(spec.draft_model_path, load, log, lambda _: on_progress(1.0))))
    if draft.only_embeds or not draft.can_cut:
        raise LoadFailed(
            "The draft model only makes embeddings, or keeps a recurrent state or a sliding window, "
            "from which a rejected draft token cannot be removed: name another draft_model, or none. With swa_full, "
            "and without kv_unified, a model with a sliding window can draft."
        )
    vocabulary = shared_size(model.vocabulary, draft.vocabulary)
    with _named():
        context = opened.enter_context(
            closing(open_context(draft, draft.load, log, Threads(load.threads, load.threads_batch)))
        )
    return DraftModel(
        context,
        load.parallel,
        vocabulary,
        model.vocabulary.is_end,
        costs,
        room=load.batch_size,
        keep=not load.kv_unified,
    )


@contextmanager
def _named() -> Iterator[None]:
    """Prefixes the block's errors with "The draft model"."""
    try:
        yield
    except LoadFailed as error:
        raise type(error)(f"The draft model: {error.message}") from error
