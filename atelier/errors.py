"""The tree of errors. Each class has its HTTP status, the name of its gRPC code, and OpenAI's `type` and `code`.

A class's docstring is its default message. `code` identifies the class between processes.
"""

from collections.abc import Iterator
from typing import ClassVar

from protos.inference_pb2 import Error


class AtelierError(Exception):
    """Internal error; the server's log has the details under this request's id."""

    status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retry_after: ClassVar[int | None] = None  # seconds

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        super().__init__(self.message)


class InvalidRequest(AtelierError):
    """The request is not valid."""

    status = 400
    grpc_code = "INVALID_ARGUMENT"
    type = "invalid_request_error"
    code = "invalid_value"


class UnsupportedField(InvalidRequest):
    """A field of the request asks for something that this server does not support."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


class InvalidSchema(InvalidRequest):
    """The JSON Schema cannot be used to constrain a completion."""

    code = "invalid_json_schema"


class InvalidGrammar(InvalidRequest):
    """The grammar or the regular expression cannot be used to constrain a completion."""

    code = "invalid_grammar"


class InvalidTemplate(InvalidRequest):
    """The chat template failed on these messages."""

    code = "invalid_chat_template"


class InvalidModelFile(InvalidRequest):
    """The file is not a GGUF model that can be loaded."""

    code = "invalid_model_file"


class PreviousResponseNotFound(InvalidRequest):
    """The previous response, or one that it continues, does not exist."""

    code = "previous_response_not_found"


class BodyTooSlow(InvalidRequest):
    """The request's body did not arrive in time."""

    status = 408
    code = "body_too_slow"


class Unauthenticated(AtelierError):
    """Send the server's key as "Authorization: Bearer KEY" or "x-api-key: KEY"."""

    status = 401
    grpc_code = "UNAUTHENTICATED"
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(AtelierError):
    """The request's Host or Origin is not allowed by this server."""

    status = 403
    grpc_code = "PERMISSION_DENIED"
    type = "permission_error"
    code = "forbidden"


class NotFound(AtelierError):
    """What the request names does not exist."""

    status = 404
    grpc_code = "NOT_FOUND"
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """There is no model of this name."""

    code = "model_not_found"


class InstanceNotFound(NotFound):
    """There is no loaded instance of this name."""

    code = "instance_not_found"


class PresetNotFound(NotFound):
    """There is no preset of this name."""

    code = "preset_not_found"


class ResponseNotFound(NotFound):
    """There is no response of this id: it was not stored, has expired, or belongs to another key."""

    code = "response_not_found"


class MethodNotAllowed(AtelierError):
    """The route exists, but not with this method."""

    status = 405
    grpc_code = "UNIMPLEMENTED"
    type = "invalid_request_error"
    code = "method_not_allowed"


class AlreadyExists(AtelierError):
    """The name is taken."""

    status = 409
    grpc_code = "ALREADY_EXISTS"
    type = "invalid_request_error"
    code = "already_exists"


class Conflict(AtelierError):
    """The request conflicts with the server's current state."""

    status = 409
    grpc_code = "ABORTED"
    type = "invalid_request_error"
    code = "conflict"


class PayloadTooLarge(AtelierError):
    """The request's body is larger than this server accepts."""

    status = 413
    grpc_code = "OUT_OF_RANGE"
    type = "invalid_request_error"
    code = "payload_too_large"


class LoadFailed(AtelierError):
    """The model could not be loaded."""

    grpc_code = "FAILED_PRECONDITION"
    code = "model_load_failed"


class InsufficientMemory(LoadFailed):
    """There is not enough memory to load the model."""

    status = 503
    grpc_code = "RESOURCE_EXHAUSTED"
    code = "insufficient_memory"
    retry_after = 30


class DecodeFailed(AtelierError):
    """llama.cpp could not compute the next token."""

    code = "decode_failed"


class DownloadNotFound(NotFound):
    """There is no download of this id."""

    code = "job_not_found"


class DownloadDamaged(AtelierError):
    """The downloaded file is not the one that its source announced; download it again."""

    status = 502
    grpc_code = "DATA_LOSS"
    code = "download_damaged"


class HubAccessDenied(AtelierError):
    """The hub denied access to the model."""

    status = 403
    grpc_code = "PERMISSION_DENIED"
    type = "permission_error"
    code = "hub_access_denied"


class DiskFull(AtelierError):
    """The disk is full."""

    status = 507
    grpc_code = "RESOURCE_EXHAUSTED"
    code = "disk_full"


class WorkerLost(AtelierError):
    """The process that served the model ended during the answer; send the request again."""

    status = 502
    grpc_code = "ABORTED"
    code = "worker_lost"


class Unavailable(AtelierError):
    """A part of the server is not available at the moment; try again."""

    status = 503
    grpc_code = "UNAVAILABLE"
    code = "unavailable"
    retry_after = 2


class HubUnavailable(Unavailable):
    """The hub is not available at the moment; try again."""

    code = "hub_unavailable"
    retry_after = 30


class MCPConnectionError(AtelierError):
    """An MCP server cannot be reached, or violates the protocol."""

    status = 424
    grpc_code = "FAILED_PRECONDITION"
    type = "mcp_connection_error"
    code = "mcp_connection_error"


class Overloaded(Unavailable):
    """The server's queue is full; try again."""

    code = "overloaded"
    retry_after = 5


class Draining(Unavailable):
    """The server is stopping."""

    code = "draining"
    retry_after = 10


class DeadlineExceeded(AtelierError):
    """The request exceeded its time limit."""

    status = 504
    grpc_code = "DEADLINE_EXCEEDED"
    code = "timeout"


class QueueTimeout(DeadlineExceeded):
    """The request waited too long for the model; try again."""

    status = 503
    code = "queue_timeout"
    retry_after = 5


def _tree(root: type[AtelierError]) -> Iterator[type[AtelierError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE = {cls.code: cls for cls in _tree(AtelierError)}


def to_message(error: AtelierError) -> Error:
    return Error(code=error.code, message=error.message, param=error.param)


def from_message(message: Error) -> AtelierError:
    """The error that the other process raised; AtelierError if its code is unknown."""
    kind = BY_CODE.get(message.code, AtelierError)
    return kind(message.message, param=message.param if message.HasField("param") else None)
