"""Small GGUF files: real headers, a few tensors, no usable model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter


def write_gguf(
    path: Path,
    *,
    name: str = "Tiny",
    architecture: str = "llama",
    file_type: int = 3,
    context_length: int = 2048,
    chat_template: str | None = None,
    extra: Mapping[str, Any] | None = None,
    tokens: int = 16,
    tensor_count: int = 2,
    tensor_rows: int = 4,
    layers: int = 2,
) -> Path:
    """A model file at `path`, folders made as needed. `extra` holds further metadata: scalars, texts, lists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_block_count(layers)
    writer.add_context_length(context_length)
    writer.add_embedding_length(32)
    writer.add_token_list([f"token {number}" for number in range(tokens)])
    writer.add_token_scores([0.0] * tokens)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for key, value in (extra or {}).items():
        _add(writer, key, value)
    for number in range(tensor_count):
        writer.add_tensor(
            f"blk.{number}.weight", np.zeros((tensor_rows, 20), np.uint8), raw_dtype=GGMLQuantizationType.Q4_1
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, value)
