"""The bodies of our own routes."""

from typing import Literal

from pydantic import Field

from gateway.openai.schema import Body


class ImportBody(Body):
    path: str = Field(min_length=1, max_length=4096, description="Of a GGUF file on the server's machine.")
    key: str | None = Field(None, description="publisher/name; otherwise made from the file.")
    mode: Literal["copy", "link", "in_place"] = Field("copy", description="What becomes of the file.")
