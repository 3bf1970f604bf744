"""A projector with random weights, for any model: its embeddings are nonsense, but reproducible."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

WIDTH = 32  # of the encoder
INNER = 64
HEADS = 2
IMAGE = 28  # pixels, either way
PATCH = 7
CELLS = {"janus_pro": 16, "gemma3": 4}  # that an image takes; in gemma3 they see one another
# Of models that place images in rows and columns, a cell for every 14 pixels either way; and their architectures.
PLANES = {"qwen2vl_merger": "qwen2vl", "qwen2.5vl_merger": "qwen2vl", "qwen3vl_merger": "qwen3vl"}
MERGED = 4  # patches that make a cell, in those


def write_tiny_projector(path: Path, width: int, *, kind: str = "janus_pro", seed: int = 0) -> Path:
    """A projector file at `path`. `width`: of the model's embeddings."""
    writer = GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    for name, value in {
        "image_size": IMAGE,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "block_count": 1,
        "projection_dim": width,
        "attention.head_count": HEADS,
        "projector.scale_factor": 2,
    }.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    if kind == "qwen2.5vl_merger":
        writer.add_uint32("clip.vision.n_wa_pattern", 2)
    _give_weights(writer, np.random.default_rng(seed), width, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _give_weights(writer: GGUFWriter, random: np.random.Generator, width: int, kind: str) -> None:
    is_placed = kind in PLANES

    def weight(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))

    def layer(name: str, out: int, into: int) -> None:
        weight(f"{name}.weight", out, into)
        weight(f"{name}.bias", out)

    def norm(name: str, size: int = WIDTH) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(size, np.float32))

    weight("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    if is_placed:
        weight("v.patch_embd.weight.1", WIDTH, 3, PATCH, PATCH)
    if kind not in ("qwen2vl_merger", "qwen2.5vl_merger"):
        weight("v.patch_embd.bias", WIDTH)
        weight("v.position_embd.weight", (IMAGE // PATCH) ** 2, WIDTH)
    for part in ("attn_out",) if kind == "qwen3vl_merger" else ("attn_q", "attn_k", "attn_v", "attn_out"):
        layer(f"v.blk.0.{part}", WIDTH, WIDTH)
    layer("v.blk.0.ffn_up", INNER, WIDTH)
    layer("v.blk.0.ffn_down", WIDTH, INNER)
    for name in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        norm(name)
    if kind == "gemma3":
        weight("mm.input_projection.weight", WIDTH, width)
        writer.add_tensor("mm.soft_emb_norm.weight", np.ones(WIDTH, np.float32))
    elif is_placed:
        layer("mm.0", MERGED * WIDTH, MERGED * WIDTH)
        layer("mm.2", width, MERGED * WIDTH)
    else:
        layer("mm.0", WIDTH, WIDTH)
        layer("mm.1", width, WIDTH)
    if kind == "qwen3vl_merger":
        layer("v.blk.0.attn_qkv", 3 * WIDTH, WIDTH)
        norm("v.deepstack.0.norm", MERGED * WIDTH)
        layer("v.deepstack.0.fc1", MERGED * WIDTH, MERGED * WIDTH)
        layer("v.deepstack.0.fc2", width, MERGED * WIDTH)
