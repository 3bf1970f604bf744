"""The tools for which a model reads and generates nothing."""

from gateway.core.unary import EmbedCall, RerankCall, TokenizeCall
from gateway.dialects.mcp.tool_definition import Caller, Core
from gateway.dialects.mcp.tool_inputs import EmbedInput, RerankInput, TokenizeInput
from gateway.dialects.mcp.tool_outputs import Ranked, Ranking, TokenPiece, TokenPieces, Vectors
from gateway.dialects.openai.rerank import best_first
from gateway.dialects.openai.tokenization import piece_text, told_about


async def embed(core: Core, caller: Caller, asked: EmbedInput) -> Vectors:
    call = EmbedCall(model=asked.model, texts=asked.texts, dimensions=asked.dimensions)
    found = await core.unary.embed(call, caller.origin, caller.account)
    vectors = [list(vector) for vector in found.vectors]
    return Vectors(model=found.model, embeddings=vectors, prompt_tokens=found.prompt_tokens)


async def rerank(core: Core, caller: Caller, asked: RerankInput) -> Ranking:
    call = RerankCall(model=asked.model, query=asked.query, documents=asked.documents)
    scores = await core.unary.rerank(call, caller.origin, caller.account)
    best = best_first(scores, asked.top_n)
    results = [Ranked(index=index, relevance_score=scores.values[index]) for index in best]
    return Ranking(model=scores.model, results=results, prompt_tokens=scores.prompt_tokens)


async def tokenize(core: Core, caller: Caller, asked: TokenizeInput) -> TokenPieces:
    call = TokenizeCall(model=asked.model, text=asked.text, add_special=asked.add_special)
    with told_about("text"):
        found = await core.unary.tokenize(call, caller.origin, caller.account)
    pairs = zip(found.ids, found.pieces, strict=True)
    tokens = [TokenPiece(id=id, piece=piece_text(piece)) for id, piece in pairs]
    return TokenPieces(model=found.model, count=len(tokens), tokens=tokens)
