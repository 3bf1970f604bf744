"""The calls of the SDK protocol: one request, one result."""

import asyncio

from atelier.errors import InstanceNotFound, ModelNotFound
from atelier.json_types import Json
from atelier.submission import Tools
from gateway.core.call import Call, EmbedCall, Tokenization, TokenizeCall
from gateway.core.call_plan import find_target
from gateway.core.image_reader import LARGE_CHARACTERS
from gateway.core.unary import Unary
from gateway.dialects.lmstudio_sdk.sdk_config import load_fields, tools_of
from gateway.dialects.lmstudio_sdk.sdk_context import CallContext
from gateway.dialects.lmstudio_sdk.sdk_frames import (
    EmbedParameter,
    ModelInfoParameter,
    ModelSpecifier,
    SpecifierParameter,
    TemplateParameter,
    TextParameter,
    UnloadParameter,
    UploadParameter,
)
from gateway.dialects.lmstudio_sdk.sdk_history import chat_of, image_handle
from gateway.dialects.lmstudio_sdk.sdk_models import (
    check_domain,
    find_loaded,
    instance_info,
    loaded_instances,
    model_info,
    requested_name,
)
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Instance
from gateway.fleet.watcher import Watcher


class ModelCalls:
    """Calls about models and instances."""

    def __init__(self, catalogue: Catalogue, control: Control, unary: Unary, watcher: Watcher) -> None:
        self._catalogue = catalogue
        self._control = control
        self._unary = unary
        self._watcher = watcher

    async def list_downloaded(self, _: object, context: CallContext) -> list[Json]:
        return [model_info(model) for _, model in sorted(self._watcher.known().models.items())]

    async def list_loaded(self, _: object, context: CallContext) -> list[Json]:
        snapshot = self._watcher.known()
        return [instance_info(each, snapshot.model_of(each)) for each in loaded_instances(snapshot, context.domain)]

    async def get_model_info(self, parameter: ModelInfoParameter, context: CallContext) -> Json | None:
        try:
            instance = self._find_loaded(parameter.specifier, context)
        except (InstanceNotFound, ModelNotFound):
            if parameter.throw_if_not_found:
                raise
            return None
        return instance_info(instance, self._watcher.snapshot.model_of(instance))

    async def get_load_config(self, parameter: SpecifierParameter, context: CallContext) -> Json:
        instance = self._find_loaded(parameter.specifier, context)
        return load_fields(instance, self._watcher.snapshot.model_of(instance))

    async def unload(self, parameter: UnloadParameter, context: CallContext) -> None:
        context.requested.model = parameter.identifier
        instance = self._catalogue.find_instance(parameter.identifier)
        check_domain(self._watcher.snapshot.model_of(instance), context.domain)
        context.account.model = instance.model_key
        await self._control.unload(instance.id)

    async def tokenize(self, parameter: TextParameter, context: CallContext) -> Json:
        return {"tokens": list((await self._tokens_of_text(parameter, context)).ids)}

    async def count_tokens(self, parameter: TextParameter, context: CallContext) -> Json:
        return {"tokenCount": len((await self._tokens_of_text(parameter, context)).ids)}

    async def apply_prompt_template(self, parameter: TemplateParameter, context: CallContext) -> Json:
        """The prompt that the model's chat template makes of a chat."""
        options, name = parameter.opts, self._loadable_name(parameter.specifier, context)
        tools = Tools(tools_of(options.tool_definitions)) if options.tool_definitions else None
        chat, end = chat_of(parameter.history)
        call = Call(model=name, prompts=[chat], prompt_end=end, tools=tools)
        prompt = (await self._unary.apply_template(call, context.origin, context.account)).text
        if options.omit_bos_token:
            prompt = prompt.removeprefix(await self._bos_text(name, context))
        return {"formatted": prompt}

    async def _bos_text(self, name: str, context: CallContext) -> str:
        """The text of the model's BOS token; empty if it adds none."""
        empty = await self._unary.tokenize(TokenizeCall(model=name, text=""), context.origin, context.account)
        return empty.pieces[0].decode(errors="replace") if empty.pieces else ""

    async def embed(self, parameter: EmbedParameter, context: CallContext) -> Json:
        name = self._loadable_name(parameter.model_specifier, context)
        call = EmbedCall(model=name, texts=[parameter.input_string])
        embeddings = await self._unary.embed(call, context.origin, context.account)
        return {"embedding": list(embeddings.vectors[0])}

    async def _tokens_of_text(self, parameter: TextParameter, context: CallContext) -> Tokenization:
        # No special tokens are added: a prompt from apply_prompt_template already contains its BOS token.
        name = self._loadable_name(parameter.specifier, context)
        call = TokenizeCall(model=name, text=parameter.input_string, add_special=False)
        return await self._unary.tokenize(call, context.origin, context.account)

    def _loadable_name(self, specifier: ModelSpecifier, context: CallContext) -> str:
        """The name of a model of the context's domain, which the core loads if necessary."""
        snapshot = self._watcher.known()
        name = context.requested.model = requested_name(specifier, snapshot, context.domain)
        check_domain(find_target(name, snapshot)[1], context.domain)
        return name

    def _find_loaded(self, specifier: ModelSpecifier, context: CallContext) -> Instance:
        snapshot = self._watcher.known()
        name = context.requested.model = requested_name(specifier, snapshot, context.domain)
        if (instance := find_loaded(name, snapshot, context.domain)) is None:
            raise InstanceNotFound(f'No instance of "{name[:200]}" is loaded.', param="model")
        context.account.model = instance.model_key
        return instance


async def upload_image(parameter: UploadParameter, context: CallContext) -> Json:
    """The image's file handle. Raises InvalidRequest if the image's format is not supported."""
    content = parameter.content_base64
    large = len(content) > LARGE_CHARACTERS  # decoding it would delay the streams
    return await asyncio.to_thread(image_handle, content) if large else image_handle(content)
