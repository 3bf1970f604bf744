"""LoRA adapters with random weights, made by a test: valid for a real model, with nonsense as their effect."""

from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFType, GGUFWriter, Keys

RANK = 8
TARGETS = ("attn_q", "attn_v", "ffn_down")
STRENGTH = 0.12  # of the weights: at scale 1 the text is another one, at 0.5 still another


def write_lora(path: Path, model: Path, seed: int = 0, *, width: int | None = None) -> Path:
    """An adapter at `path` for the model, on a few matrices of each fourth layer.

    `width`: of the matrices' input, in place of the model's; for an adapter that does not fit.
    """
    shapes = {tensor.name: tensor.shape for tensor in GGUFReader(model).tensors}
    names = [f"blk.{layer}.{target}.weight" for layer in range(0, 128, 4) for target in TARGETS]
    random = np.random.default_rng(seed)
    writer = _adapter(path, "llama")
    for name in names:
        if name in shapes:
            into, out = width or shapes[name][0], shapes[name][1]
            writer.add_tensor(f"{name}.lora_a", random.normal(0, STRENGTH, (RANK, into)).astype(np.float32))
            writer.add_tensor(f"{name}.lora_b", random.normal(0, STRENGTH, (out, RANK)).astype(np.float32))
    return _write(writer, path)


def write_lora_header(
    path: Path,
    architecture: str = "llama",
    *,
    general_type: str | None = GGUFType.ADAPTER,
    adapter_type: str | None = "lora",
    invocation_tokens: tuple[int, ...] = (),
    tensors: int = 1,
) -> Path:
    """An adapter with a header only, valid except for what the test changes."""
    writer = _adapter(path, architecture, general_type, adapter_type)
    if invocation_tokens:
        writer.add_array(Keys.Adapter.ALORA_INVOCATION_TOKENS, list(invocation_tokens))
    for number in range(tensors):
        writer.add_tensor(f"blk.{number}.attn_q.weight.lora_a", np.zeros((RANK, 32), np.float32))
    return _write(writer, path)


def _adapter(
    path: Path, architecture: str, general_type: str | None = GGUFType.ADAPTER, adapter_type: str | None = "lora"
) -> GGUFWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, architecture)
    if general_type is not None:
        writer.add_type(general_type)
    if adapter_type is not None:
        writer.add_string(Keys.Adapter.TYPE, adapter_type)
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(RANK))
    return writer


def _write(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
