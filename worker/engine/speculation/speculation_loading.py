"""Opens the drafter that a model's load settings ask for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from atelier.errors import LoadFailed
from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from worker.engine.model.context import Threads, open_context
from worker.engine.model.decode_costs import Costs
from worker.engine.model.loaded_model import LlamaLog, LoadedModel
from worker.engine.speculation.draft_model import DraftModel, shared_size
from worker.engine.speculation.drafting import Drafter, Speculation
from worker.engine.speculation.prompt_lookup import LookupDrafter


def check_speculation(model: LoadedModel, load: Load) -> None:
    """Raises LoadFailed when speculation is on and the model does not support it."""
    if load.speculation == "off":
        return
    if model.only_embeds:
        raise LoadFailed("This model completes no prompts, so it cannot use speculation: load it with speculation off.")
    if not model.can_cut:
        raise LoadFailed(
            "This model keeps a recurrent state or a sliding window, from which a rejected draft token cannot be "
            "removed: load it with speculation off, or a model with a sliding window with swa_full and without "
            "kv_unified."
        )


def open_speculation(
    spec: LaunchSpec,
    model: LoadedModel,
    costs: Costs,
    log: LlamaLog,
    on_progress: Callable[[float], bool],
    opened: ExitStack,
) -> Speculation | None:
    """The drafter of the settings, if they name one; closed with `opened`. Raises LoadFailed."""
    drafter: Drafter
    match spec.load.speculation:
        case "prompt_lookup":
            drafter = LookupDrafter()
        case "draft_model":
            drafter = _open_draft_model(spec, model, costs, log, on_progress, opened)
        case _:
            return None
    return Speculation(drafter, spec.load.draft_tokens)


def _open_draft_model(
    spec: LaunchSpec,
    model: LoadedModel,
    costs: Costs,
    log: LlamaLog,
    on_progress: Callable[[float], bool],
    opened: ExitStack,
) -> DraftModel:
    load = spec.load
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
            closing(open_context(draft, load, log, Threads(load.threads, load.threads_batch)))
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
