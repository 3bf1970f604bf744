"""The calls with one answer."""

from typing import Any

from atelier.errors import InstanceNotFound, ModelNotFound
from atelier.json_types import Json
from atelier.tools import Tools
from gateway.core.call import Call, Chat, find_target
from gateway.core.unary import EmbedCall, TokenizeCall, TokenList, Unary
from gateway.dialects.lmstudio_sdk.sdk_config import load_fields, tools_of
from gateway.dialects.lmstudio_sdk.sdk_context import Work
from gateway.dialects.lmstudio_sdk.sdk_errors import parsed
from gateway.dialects.lmstudio_sdk.sdk_frames import (
    EmbedParameter,
    ModelInfoParameter,
    ModelSpecifier,
    SpecifierParameter,
    TemplateParameter,
    TextParameter,
    UnloadParameter,
)
from gateway.dialects.lmstudio_sdk.sdk_history import chat_messages
from gateway.dialects.lmstudio_sdk.sdk_models import (
    check_domain,
    find_loaded,
    instance_info,
    loaded_instances,
    meant_name,
    model_info,
    model_of,
)
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Instance
from gateway.fleet.watcher import Watcher


class Calls:
    def __init__(self, catalogue: Catalogue, control: Control, unary: Unary, watcher: Watcher) -> None:
        self._catalogue = catalogue
        self._control = control
        self._unary = unary
        self._watcher = watcher

    async def list_downloaded(self, parameter: Any, work: Work) -> list[Json]:
        return [model_info(model) for _, model in sorted(self._watcher.known().models.items())]

    async def list_loaded(self, parameter: Any, work: Work) -> list[Json]:
        snapshot = self._watcher.known()
        return [instance_info(each, model_of(each, snapshot)) for each in loaded_instances(snapshot, work.domain)]

    async def get_model_info(self, parameter: Any, work: Work) -> Json | None:
        asked = parsed(ModelInfoParameter, parameter)
        try:
            instance = self._find_loaded(asked.specifier, work)
        except (InstanceNotFound, ModelNotFound):
            if asked.throw_if_not_found:
                raise
            return None
        return instance_info(instance, model_of(instance, self._watcher.snapshot))

    async def get_load_config(self, parameter: Any, work: Work) -> Json:
        instance = self._find_loaded(parsed(SpecifierParameter, parameter).specifier, work)
        return load_fields(instance, model_of(instance, self._watcher.snapshot))

    async def unload(self, parameter: Any, work: Work) -> None:
        name = work.named.model = parsed(UnloadParameter, parameter).identifier
        instance = self._catalogue.find_instance(name)
        check_domain(model_of(instance, self._watcher.snapshot), work.domain)
        work.account.model = instance.model_key
        await self._control.unload(instance.id)

    async def tokenize(self, parameter: Any, work: Work) -> Json:
        return {"tokens": list((await self._tokens_of_text(parameter, work)).ids)}

    async def count_tokens(self, parameter: Any, work: Work) -> Json:
        return {"tokenCount": len((await self._tokens_of_text(parameter, work)).ids)}

    async def apply_prompt_template(self, parameter: Any, work: Work) -> Json:
        """The prompt that a chat becomes."""
        asked = parsed(TemplateParameter, parameter)
        name = self._meant(asked.specifier, work)
        definitions = asked.opts.tool_definitions
        tools = Tools(tools_of(definitions)) if definitions else None
        call = Call(model=name, prompts=[Chat.of(chat_messages(asked.history))], tools=tools)
        prompt = (await self._unary.apply_template(call, work.origin, work.account)).text
        if asked.opts.omit_bos_token:
            prompt = prompt.removeprefix(await self._beginning(name, work))
        return {"formatted": prompt}

    async def _beginning(self, name: str, work: Work) -> str:
        """What the model has before every text, as it is written."""
        none = await self._unary.tokenize(TokenizeCall(model=name, text=""), work.origin, work.account)
        return none.pieces[0].decode(errors="replace") if none.pieces else ""

    async def embed(self, parameter: Any, work: Work) -> Json:
        asked = parsed(EmbedParameter, parameter)
        call = EmbedCall(model=self._meant(asked.model_specifier, work), texts=[asked.input_string])
        embeddings = await self._unary.embed(call, work.origin, work.account)
        return {"embedding": list(embeddings.vectors[0])}

    async def _tokens_of_text(self, parameter: Any, work: Work) -> TokenList:
        asked = parsed(TextParameter, parameter)
        # Of the text alone: a prompt that apply_prompt_template gave has its beginning in it.
        call = TokenizeCall(model=self._meant(asked.specifier, work), text=asked.input_string, add_special=False)
        return await self._unary.tokenize(call, work.origin, work.account)

    def _meant(self, specifier: ModelSpecifier, work: Work) -> str:
        """The name of a model of this kind; it is loaded for the call if need be."""
        snapshot = self._watcher.known()
        name = work.named.model = meant_name(specifier, snapshot, work.domain)
        check_domain(find_target(name, snapshot)[1], work.domain)
        return name

    def _find_loaded(self, specifier: ModelSpecifier, work: Work) -> Instance:
        snapshot = self._watcher.known()
        name = work.named.model = meant_name(specifier, snapshot, work.domain)
        if (instance := find_loaded(name, snapshot, work.domain)) is None:
            raise InstanceNotFound(f'No instance of "{name[:200]}" is loaded.', param="model")
        work.account.model = instance.model_key
        return instance
