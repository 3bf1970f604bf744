"""JSON as Python objects, where its shape is somebody else's: a client's schema, a template's variables."""

from typing import Any

Json = dict[str, Any]
"""A JSON object. Shapes that this project defines are TypedDicts or dataclasses instead."""
