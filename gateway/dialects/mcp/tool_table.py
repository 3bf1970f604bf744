"""The table of tools."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from mcp_types import Tool

from gateway.dialects.lmstudio.lmstudio_model_list import V1ModelList
from gateway.dialects.mcp import inference_tools as inference
from gateway.dialects.mcp import management_tools as management
from gateway.dialects.mcp import tool_schemas as schemas
from gateway.dialects.mcp.tool_definition import Hints, ToolDefinition
from gateway.dialects.native.download_replies import HubRepositories
from gateway.dialects.native.model_replies import DescribedModel
from gateway.dialects.native.preset_replies import ModelSettings

READS = Hints()
GENERATES = Hints(idempotent=False)  # without a seed, the next answer differs
LOADS = Hints(reads_only=False, idempotent=False)
UNLOADS = Hints(reads_only=False, destroys=True, idempotent=False)  # the second call finds no instance
SEARCHES = Hints(open_world=True)
DOWNLOADS = Hints(reads_only=False, open_world=True)

TOOLS: tuple[ToolDefinition[Any], ...] = (
    ToolDefinition(
        "chat",
        "Chat with a model",
        "Have a language model of this server answer a conversation. It is loaded if it is not loaded yet. "
        "Progress notifications carry the text as it is generated.",
        schemas.ChatInput,
        schemas.Generated,
        GENERATES,
        inference.chat,
        text_field="text",
    ),
    ToolDefinition(
        "complete",
        "Continue a text",
        "Have a language model continue a text as it stands. Progress notifications carry the text as it is generated.",
        schemas.CompleteInput,
        schemas.Generated,
        GENERATES,
        inference.complete,
        text_field="text",
    ),
    ToolDefinition(
        "embed",
        "Texts to vectors",
        "Turn texts into vectors of unit length with an embedding model, to compare them by meaning.",
        schemas.EmbedInput,
        schemas.Vectors,
        READS,
        inference.embed,
    ),
    ToolDefinition(
        "rerank",
        "Rank documents",
        "Order documents by how well they answer a query, with a reranking model.",
        schemas.RerankInput,
        schemas.Ranking,
        READS,
        inference.rerank,
    ),
    ToolDefinition(
        "tokenize",
        "Text to tokens",
        "Return the tokens of a text in a model's vocabulary, and their number.",
        schemas.TokenizeInput,
        schemas.TokenPieces,
        READS,
        inference.tokenize,
    ),
    ToolDefinition(
        "list_models",
        "List the models",
        "List the models that this server has, with their loaded instances.",
        schemas.NoInput,
        V1ModelList,
        READS,
        management.list_models,
    ),
    ToolDefinition(
        "model_info",
        "Describe a model",
        "Return all that is known of a model: its size, licence, chat template, and the memory that it needs.",
        schemas.ModelInput,
        DescribedModel,
        READS,
        management.model_info,
    ),
    ToolDefinition(
        "effective_settings",
        "A model's settings",
        "Return every setting of a model with the origin of its value: a preset, the instance, the file, a default.",
        schemas.SettingsInput,
        ModelSettings,
        READS,
        management.effective_settings,
    ),
    ToolDefinition(
        "load_model",
        "Load a model",
        "Load one more instance of a model. Chatting with a model loads it by itself; this is for settings of its own.",
        schemas.LoadInput,
        schemas.Loaded,
        LOADS,
        management.load_model,
    ),
    ToolDefinition(
        "unload_model",
        "Unload a model",
        "Unload an instance and free its memory. Answers in progress are finished first.",
        schemas.UnloadInput,
        schemas.Unloaded,
        UNLOADS,
        management.unload_model,
    ),
    ToolDefinition(
        "search_models",
        "Search the hub",
        "Search the Hugging Face hub for GGUF models, with their quantizations and whether those fit this machine.",
        schemas.SearchInput,
        HubRepositories,
        SEARCHES,
        management.search_models,
    ),
    ToolDefinition(
        "download_model",
        "Download a model",
        "Download a model from the hub, and wait for it. Progress notifications carry the bytes downloaded. "
        "Cancelling the call does not cancel the download.",
        schemas.DownloadInput,
        schemas.Downloaded,
        DOWNLOADS,
        management.download_model,
    ),
)
BY_NAME = {tool.name: tool for tool in TOOLS}


@cache
def tool_entries() -> Mapping[str, Tool]:
    """As tools/list returns them, by name. Their schemas take a while to make, and never change."""
    return {tool.name: tool.entry() for tool in TOOLS}
