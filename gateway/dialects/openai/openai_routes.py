"""OpenAI's routes, and those that its clients know from llama.cpp, Jina and Cohere."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import InvalidRequest, ModelNotFound
from gateway.core.unary import Unary
from gateway.dialects.anthropic.anthropic_model_list import MOST_LISTED
from gateway.dialects.anthropic.anthropic_routes import AnthropicRoutes, by_client
from gateway.dialects.body import read_body
from gateway.dialects.openai.embeddings_and_tokens import (
    DetokenizeBody,
    EmbeddingBody,
    Ranking,
    RerankBody,
    TokenizeBody,
    TokenList,
    Vectors,
    WrittenPrompt,
    WrittenText,
    embed_call,
    embedding_list,
    errors_named,
    rerank_call,
    rerank_reply,
    token_list,
    tokenize_call,
)
from gateway.dialects.openai.openai_calls import (
    chat_call,
)
from gateway.dialects.openai.openai_completions import Completions
from gateway.dialects.openai.openai_model_list import ListedModel, ListedModels, ModelList, model_object
from gateway.dialects.openai.openai_replies import (
    ChatChunk,
    ChatCompletion,
    TextChunk,
    TextCompletion,
)
from gateway.dialects.openai.openai_requests import ChatBody, CompletionBody
from gateway.dialects.reply import account_of, json_response, origin_of
from gateway.dialects.route import HI, HOSTED, INFERENCE, MODEL, Route
from gateway.fleet.catalogue import Catalogue
from gateway.http.streaming import while_connected

ANTHROPICS = "Used where the request has an `anthropic-version` header."


class OpenAIRoutes:
    tag: ClassVar[str] = "OpenAI"

    def __init__(
        self,
        completions: Completions,
        unary: Unary,
        catalogue: Catalogue,
        anthropic: AnthropicRoutes,
        *,
        numbers_alone: bool = False,
    ) -> None:
        """`anthropic`: its model lists share these paths. `numbers_alone`: vectors are never returned as base64."""
        self._anthropic = anthropic
        self._numbers_alone = numbers_alone
        self._completions = completions
        self._unary = unary
        self._catalogue = catalogue

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /v1/chat/completions",
                self.chat_completions,
                "Answer a chat (OpenAI)",
                body=ChatBody,
                request={"model": MODEL, "messages": HI, "max_tokens": 32},
                errors=HOSTED,
                reply=ChatCompletion,
                events=ChatChunk,
            ),
            Route(
                "POST /v1/completions",
                self.completions,
                "Continue a text (OpenAI)",
                body=CompletionBody,
                request={"model": MODEL, "prompt": "The capital of Norway is", "max_tokens": 4},
                errors=INFERENCE,
                reply=TextCompletion,
                events=TextChunk,
            ),
            Route(
                "POST /v1/embeddings",
                self.embeddings,
                "Compute embeddings of texts (OpenAI)",
                body=EmbeddingBody,
                request={"model": "nomic-embed-text-v1.5", "input": ["a fjord", "a mountain"]},
                errors=INFERENCE,
                reply=Vectors,
            ),
            *(
                Route(
                    f"POST {prefix}/rerank",
                    self.rerank,
                    "Rank documents by relevance to a query (Jina, Cohere)",
                    body=RerankBody,
                    request={
                        "model": "bge-reranker-v2-m3",
                        "query": "blue sea",
                        "documents": ["red", "blue sea"],
                        "top_n": 1,
                    },
                    errors=INFERENCE,
                    reply=Ranking,
                )
                for prefix in ("/v1", "")
            ),
            *self._token_routes(""),
            *self._token_routes("/v1"),
            Route(
                "GET /v1/models",
                by_client(self._anthropic.list_models, self.list_models),
                "List the models and instances that requests may name (OpenAI, Anthropic)",
                errors=(InvalidRequest,),
                query={
                    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "description": ANTHROPICS},
                    "after_id": {"type": "string", "description": ANTHROPICS},
                    "before_id": {"type": "string", "description": ANTHROPICS},
                },
                reply=ListedModels,
            ),
            Route(
                "GET /v1/models/{id:path}",
                by_client(self._anthropic.get_model, self.get_model),
                "One model (OpenAI, Anthropic)",
                errors=(ModelNotFound,),
                reply=ListedModel,
            ),
        )

    def _token_routes(self, prefix: str) -> Sequence[Route]:
        return (
            Route(
                f"POST {prefix}/tokenize",
                self.tokenize,
                "Convert text to tokens (llama.cpp)",
                body=TokenizeBody,
                request={"model": MODEL, "content": "Hello world"},
                errors=INFERENCE,
                reply=TokenList,
            ),
            Route(
                f"POST {prefix}/detokenize",
                self.detokenize,
                "Convert tokens to text (llama.cpp)",
                body=DetokenizeBody,
                request={"model": MODEL, "tokens": [19556, 905]},
                errors=INFERENCE,
                reply=WrittenText,
            ),
            Route(
                f"POST {prefix}/apply-template",
                self.apply_template,
                "Render a chat's prompt (llama.cpp)",
                body=ChatBody,
                request={"model": MODEL, "messages": HI},
                errors=INFERENCE,
                reply=WrittenPrompt,
            ),
        )

    async def chat_completions(self, request: Request) -> Response:
        return await self._completions.chat(request, await read_body(request, ChatBody))

    async def completions(self, request: Request) -> Response:
        return await self._completions.text(request, await read_body(request, CompletionBody))

    async def embeddings(self, request: Request) -> Response:
        body = await read_body(request, EmbeddingBody)
        async with while_connected(request.receive):
            found = await self._unary.embed(embed_call(body), origin_of(request), account_of(request))
            # Encoding thousands of vectors would delay the streams of this event loop.
            encoding = None if self._numbers_alone else body.encoding_format
            return await asyncio.to_thread(lambda: json_response(embedding_list(found, encoding)))

    async def rerank(self, request: Request) -> Response:
        body = await read_body(request, RerankBody)
        async with while_connected(request.receive):
            scores = await self._unary.rerank(rerank_call(body), origin_of(request), account_of(request))
            return json_response(rerank_reply(scores, body))

    async def tokenize(self, request: Request) -> Response:
        body = await read_body(request, TokenizeBody)
        async with while_connected(request.receive):
            with errors_named("content"):
                tokens = await self._unary.tokenize(tokenize_call(body), origin_of(request), account_of(request))
            return json_response(token_list(tokens, with_pieces=bool(body.with_pieces)))

    async def detokenize(self, request: Request) -> Response:
        body = await read_body(request, DetokenizeBody)
        async with while_connected(request.receive):
            with errors_named("tokens"):
                words = await self._unary.detokenize(body.model, body.tokens, origin_of(request), account_of(request))
            return json_response({"content": words.text})

    async def apply_template(self, request: Request) -> Response:
        body = await read_body(request, ChatBody)
        async with while_connected(request.receive):
            words = await self._unary.apply_template(chat_call(body), origin_of(request), account_of(request))
            return json_response({"prompt": words.text})

    async def list_models(self, request: Request) -> Response:
        entries = [model_object(*entry, self._catalogue.snapshot) for entry in self._catalogue.served()]
        reply: ModelList = {"object": "list", "data": entries}
        return json_response(reply)

    async def get_model(self, request: Request) -> Response:
        found = self._catalogue.find(request.path_params["id"])
        return json_response(model_object(*found, self._catalogue.snapshot))
