"""A BERT with random weights, small enough to be made by a test: real tensors, nonsense for vectors."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

WORDS = ["sea", "ship", "harbour", "bread", "oven", "flour", "the", "a", "is", "warm", "blue", "old", "what", "where"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LENGTH = 32  # of an embedding
INNER = 64
HEADS = 4
LAYERS = 2
LONGEST = 256  # tokens


def write_tiny_bert(path: Path, pooling: PoolingType, seed: int = 0) -> Path:
    """A model file at `path`; with PoolingType.RANK it is a reranker, with a head of one score."""
    writer = GGUFWriter(path, "bert")
    _describe(writer, pooling)
    _give_vocabulary(writer)
    _give_weights(writer, np.random.default_rng(seed), ranks=pooling is PoolingType.RANK)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: GGUFWriter, pooling: PoolingType) -> None:
    writer.add_name("Tiny BERT")
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(LENGTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_file_type(0)


def _give_vocabulary(writer: GGUFWriter) -> None:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*SPECIAL, *(f"▁{word}" for word in WORDS), *(f"▁{each}" for each in letters if each != "a"), *letters]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens],
    )
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def _give_weights(writer: GGUFWriter, random: np.random.Generator, *, ranks: bool) -> None:
    def weight(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.3, shape).astype(np.float32))

    def bias(name: str, size: int) -> None:
        writer.add_tensor(f"{name}.bias", random.normal(0, 0.1, size).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(LENGTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(LENGTH, np.float32))

    def linear(name: str, out: int, into: int) -> None:
        weight(name, out, into)
        bias(name, out)

    weight("token_embd", len(SPECIAL) + len(WORDS) + 25 + 26, LENGTH)
    weight("token_types", 2, LENGTH)
    weight("position_embd", LONGEST, LENGTH)
    norm("token_embd_norm")
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            linear(f"blk.{layer}.{part}", LENGTH, LENGTH)
        norm(f"blk.{layer}.attn_output_norm")
        linear(f"blk.{layer}.ffn_up", INNER, LENGTH)
        linear(f"blk.{layer}.ffn_down", LENGTH, INNER)
        norm(f"blk.{layer}.layer_output_norm")
    if ranks:
        linear("cls", LENGTH, LENGTH)
        linear("cls.output", 1, LENGTH)
