"""The table of tools."""

from collections.abc import Mapping
from functools import cache

from mcp_types import Tool as ToolEntry

from gateway.dialects.lmstudio.lmstudio_reply_types import V1ModelList
from gateway.dialects.mcp import encoding_tools as reading
from gateway.dialects.mcp import generation_tools as generating
from gateway.dialects.mcp import hub_tools as hub
from gateway.dialects.mcp import management_tools as managing
from gateway.dialects.mcp import tool_inputs as inputs
from gateway.dialects.mcp import tool_outputs as outputs
from gateway.dialects.mcp.tool_definition import Hints, Tool
from gateway.dialects.native.download_reply_types import HubRepositories
from gateway.dialects.native.native_reply_types import DescribedModel
from gateway.dialects.native.preset_reply_types import ModelSettings

READS = Hints()
GENERATES = Hints(idempotent=False)  # without a seed, the next answer is another
LOADS = Hints(reads_only=False, idempotent=False)
UNLOADS = Hints(reads_only=False, destroys=True, idempotent=False)  # a second time there is none
SEARCHES = Hints(open_world=True)
DOWNLOADS = Hints(reads_only=False, open_world=True)

TOOLS = (
    Tool(
        "chat",
        "Chat with a model",
        "Have a language model of this server answer a conversation. It is loaded where need be. "
        "Progress notifications bring the text as it is generated.",
        inputs.ChatInput,
        outputs.Generated,
        GENERATES,
        generating.chat,
    ),
    Tool(
        "complete",
        "Continue a text",
        "Have a language model continue a text as it stands. Progress notifications bring the text as it is generated.",
        inputs.CompleteInput,
        outputs.Generated,
        GENERATES,
        generating.complete,
    ),
    Tool(
        "embed",
        "Texts to vectors",
        "Turn texts into vectors of unit length with an embedding model, to compare them by meaning.",
        inputs.EmbedInput,
        outputs.Vectors,
        READS,
        reading.embed,
    ),
    Tool(
        "rerank",
        "Rank documents",
        "Order documents by how well they answer a query, with a reranking model.",
        inputs.RerankInput,
        outputs.Ranking,
        READS,
        reading.rerank,
    ),
    Tool(
        "tokenize",
        "Text to tokens",
        "Tell the tokens that a model reads a text as, and how many.",
        inputs.TokenizeInput,
        outputs.TokenPieces,
        READS,
        reading.tokenize,
    ),
    Tool(
        "list_models",
        "List the models",
        "List the models that this server has, with the instances of them that are loaded.",
        inputs.NoInput,
        V1ModelList,
        READS,
        managing.list_models,
    ),
    Tool(
        "model_info",
        "Describe a model",
        "Tell all that is known of a model: its size, licence, chat template, and the memory that it takes.",
        inputs.ModelInput,
        DescribedModel,
        READS,
        managing.model_info,
    ),
    Tool(
        "effective_settings",
        "A model's settings",
        "Tell every setting of a model with where its value comes from: a preset, the instance, the file, a default.",
        inputs.SettingsInput,
        ModelSettings,
        READS,
        managing.effective_settings,
    ),
    Tool(
        "load_model",
        "Load a model",
        "Load one more instance of a model. Chatting with a model loads it by itself; this is for settings of its own.",
        inputs.LoadInput,
        outputs.Loaded,
        LOADS,
        managing.load_model,
    ),
    Tool(
        "unload_model",
        "Unload a model",
        "Unload an instance and free its memory. Answers that it is generating are finished first.",
        inputs.UnloadInput,
        outputs.Unloaded,
        UNLOADS,
        managing.unload_model,
    ),
    Tool(
        "search_models",
        "Search the hub",
        "Search the Hugging Face hub for GGUF models, with their quantizations and whether those fit this machine.",
        inputs.SearchInput,
        HubRepositories,
        SEARCHES,
        hub.search_models,
    ),
    Tool(
        "download_model",
        "Download a model",
        "Download a model from the hub, and wait for it. Progress notifications tell the bytes. "
        "Who cancels the call waits no longer; the download goes on.",
        inputs.DownloadInput,
        outputs.Downloaded,
        DOWNLOADS,
        hub.download_model,
    ),
)
BY_NAME = {tool.name: tool for tool in TOOLS}


@cache
def tool_entries() -> Mapping[str, ToolEntry]:
    """As tools/list has them, by name. Their schemas take a while to write, and are always the same."""
    return {tool.name: tool.entry() for tool in TOOLS}
