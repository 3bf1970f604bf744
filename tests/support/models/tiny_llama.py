"""A generative model with random weights, small enough to be made by a test: real tensors, nonsense for text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize

WIDTH = 32  # of an embedding
INNER = 64
HEADS = 2
LAYERS = 2
LONGEST = 512  # tokens
SLIDING_WINDOW = 64  # tokens; of gemma2 alone
SECTIONS = [2, 3, 3, 0]  # of RoPE's pairs: time, rows, columns; of qwen2vl and qwen3vl
EXPERTS_USED = 2  # of a mixture
DEEP = 1  # layers of qwen3vl that read a part of an image of their own
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


def write_tiny_llama(
    path: Path,
    *,
    architecture: str = "llama",
    letters: Sequence[str] = LETTERS,
    bos: int = 1,
    seed: int = 0,
    quantised: bool = False,
    template: str | None = None,
    experts: int = 0,
) -> Path:
    """A model file at `path`. The architecture may be gemma2 too, whose every other layer has a sliding window.

    Or qwen2vl or qwen3vl, which place images in rows and columns (M-RoPE).

    `letters`: the tokens that are neither special nor bytes. `quantised`: to five bits.
    `template`: for chats. `experts`: of each layer, a mixture of which EXPERTS_USED are used; 0: no mixture.
    """
    writer = GGUFWriter(path, architecture)
    _describe(writer, architecture)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(EXPERTS_USED)
    writer.add_file_type(LlamaFileType.MOSTLY_Q5_1 if quantised else LlamaFileType.ALL_F32)
    if template is not None:
        writer.add_chat_template(template)
    vocabulary = add_byte_vocabulary(writer, letters, bos)
    _give_weights(writer, np.random.default_rng(seed), vocabulary, architecture, quantised=quantised, experts=experts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: GGUFWriter, architecture: str) -> None:
    writer.add_name("Tiny")
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(WIDTH // HEADS)
    writer.add_value_length(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "gemma2":
        writer.add_sliding_window(SLIDING_WINDOW)
    if architecture in ("qwen2vl", "qwen3vl"):
        writer.add_rope_dimension_sections(SECTIONS)
    if architecture == "qwen3vl":
        writer.add_num_deepstack_layers(DEEP)


def add_byte_vocabulary(writer: GGUFWriter, letters: Sequence[str] = LETTERS, bos: int = 1) -> int:
    """A tokenizer of three special tokens, bytes and letters. Returns the number of its tokens."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL, *BYTES, *letters])
    writer.add_token_scores([0.0] * len(SPECIAL) + [-100.0] * len(BYTES) + [-1.0] * len(letters))
    kinds = [TokenType.CONTROL] * len(SPECIAL) + [TokenType.BYTE] * len(BYTES) + [TokenType.NORMAL] * len(letters)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    return len(SPECIAL) + len(BYTES) + len(letters)


def _give_weights(
    writer: GGUFWriter,
    random: np.random.Generator,
    vocabulary: int,
    architecture: str,
    *,
    quantised: bool,
    experts: int,
) -> None:
    is_gemma = architecture == "gemma2"

    def weight(name: str, out: int, into: int, *mixed: int) -> None:
        numbers = random.normal(0, 0.3, (*mixed, out, into)).astype(np.float32)
        if quantised:
            blocks = quantize(numbers, GGMLQuantizationType.Q5_1)
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=GGMLQuantizationType.Q5_1)
        else:
            writer.add_tensor(f"{name}.weight", numbers)

    def norm(name: str, width: int = WIDTH) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    weight("token_embd", vocabulary, WIDTH)
    if not is_gemma:  # whose output layer is the embedding's
        weight("output", vocabulary, WIDTH)
    norm("output_norm")
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weight(f"blk.{layer}.{part}", WIDTH, WIDTH)
        mixed, suffix = ((experts,), "_exps") if experts else ((), "")
        for part in ("ffn_gate", "ffn_up"):
            weight(f"blk.{layer}.{part}{suffix}", INNER, WIDTH, *mixed)
        weight(f"blk.{layer}.ffn_down{suffix}", WIDTH, INNER, *mixed)
        if experts:
            weight(f"blk.{layer}.ffn_gate_inp", experts, WIDTH)
        for part in ("attn_norm", "ffn_norm", *(("post_attention_norm", "post_ffw_norm") if is_gemma else ())):
            norm(f"blk.{layer}.{part}")
        for part in ("attn_q_norm", "attn_k_norm") if architecture == "qwen3vl" else ():
            norm(f"blk.{layer}.{part}", WIDTH // HEADS)
