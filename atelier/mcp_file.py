"""`mcp.json` in the home: the MCP servers whose tools models can use, in the format of other MCP hosts.

    {"mcpServers": {"files": {"command": "mcp-files", "args": ["/data"]}, "wiki": {"url": "https://wiki.example/mcp"}}}

In addition to the usual keys, an entry may have `disabled`, `allowedTools`, `requireApproval`, `timeout`, `sampling`
and `elicitation`. Unknown keys are kept and ignored.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from atelier.json_types import Json

NAME = "mcp.json"
SERVERS = "mcpServers"
LARGEST = 2**20  # bytes
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")
VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
OURS = "ATELIER_"  # prefix of this server's own variables, which may be secret

Text = Annotated[str, StringConstraints(min_length=1)]


class WrongFile(Exception):
    """The file is not valid. The message has the place and the fault, but no values, which may be secret."""


class Entry(BaseModel):
    """One server. Texts may contain environment variables: `${NAME}`, `${env:NAME}` and `${NAME:-default}`."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, alias_generator=to_camel)

    type: Literal["stdio", "http", "streamable-http", "streamableHttp"] | None = None
    command: Text | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: Text | None = None
    url: Annotated[str, StringConstraints(pattern="(?i)^(https?://|\\$\\{)")] | None = None
    headers: dict[str, str] = {}

    disabled: bool = False
    allowed_tools: list[str] | None = None
    require_approval: Literal["always", "never"] | list[str] = "never"
    timeout: float = Field(60.0, gt=0, le=3600)
    sampling: Text | None = None
    elicitation: bool = False

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("needs either a command or a url")
        return self


def path_in(home: Path) -> Path:
    return home / NAME


def read_document(path: Path) -> Json:
    """The whole file; {} if it does not exist. Raises WrongFile or OSError."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        return {}
    if len(data) > LARGEST:
        raise WrongFile(f"it has more than {LARGEST} bytes")
    try:
        document = json.loads(data)
    except json.JSONDecodeError as error:
        raise WrongFile(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError):
        raise WrongFile("it is not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get(SERVERS, {}), dict):
        raise WrongFile(f'it is not an object with an object "{SERVERS}"')
    return document


def entries_of(document: Json, environment: Mapping[str, str]) -> dict[str, Entry]:
    """The entries by label, with environment variables substituted. Raises WrongFile."""
    return {label: entry_of(label, given, environment) for label, given in document.get(SERVERS, {}).items()}


def entry_of(label: str, given: object, environment: Mapping[str, str] | None) -> Entry:
    """One entry. `environment`: None leaves variables unsubstituted. Raises WrongFile."""
    place = f"{SERVERS}.{label[:100]}"
    if not LABEL.fullmatch(label):
        raise WrongFile(f"{place}: a label consists of at most 64 letters, digits, spaces and . _ -")
    try:
        entry = Entry.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        raise WrongFile(f"{place}{where}: {fault['msg'].removeprefix('Value error, ')}") from None
    return entry if environment is None else _expanded(entry, place, environment)


def write_document(path: Path, document: Json) -> None:
    """Replace the file atomically, readable by its owner alone: it may contain secrets. Raises OSError."""
    path = path.resolve()  # so that a link remains a link
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=f".{NAME}.", dir=path.parent)  # readable by its owner alone
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _expanded(entry: Entry, place: str, environment: Mapping[str, str]) -> Entry:
    def expand(text: str, key: str) -> str:
        def value(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            if name.upper().startswith(OURS):
                raise WrongFile(f"{place}.{key}: {name} is a variable of this server itself, which is not passed on")
            if default is not None:
                return environment.get(name) or default
            if name not in environment:
                raise WrongFile(f"{place}.{key}: there is no variable {name} in the server's environment")
            return environment[name]

        return VARIABLE.sub(value, text)

    def expand_all(texts: Mapping[str, str], key: str) -> dict[str, str]:
        return {name: expand(text, f"{key}.{name}") for name, text in texts.items()}

    return entry.model_copy(
        update={
            "command": entry.command and expand(entry.command, "command"),
            "args": [expand(text, f"args[{i}]") for i, text in enumerate(entry.args)],
            "env": expand_all(entry.env, "env"),
            "cwd": entry.cwd and expand(entry.cwd, "cwd"),
            "url": entry.url and expand(entry.url, "url"),
            "headers": expand_all(entry.headers, "headers"),
        }
    )
