"""The error classes."""

import pytest

from atelier.errors import BY_CODE, AtelierError, ModelNotFound, from_message, to_message
from protos.inference_pb2 import Error


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_every_error_survives_the_wire(kind: type[AtelierError]) -> None:
    error = from_message(Error.FromString(to_message(kind("why", param="p")).SerializeToString()))
    assert type(error) is kind
    assert (error.message, error.param) == ("why", "p")


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_default_message(kind: type[AtelierError]) -> None:
    assert kind().message.endswith(".") or kind().message.endswith('KEY".')


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_retriable_errors_say_when_to_retry(kind: type[AtelierError]) -> None:
    assert (kind.retry_after is not None) == (kind.status in (429, 503))


def test_codes_are_unique() -> None:
    def tree(root: type[AtelierError]) -> list[type[AtelierError]]:
        return [root, *(found for child in root.__subclasses__() for found in tree(child))]

    assert len(tree(AtelierError)) >= len(BY_CODE)
    assert BY_CODE["model_not_found"] is ModelNotFound


def test_an_unknown_code_keeps_its_message() -> None:
    error = from_message(Error(code="from the future", message="hm"))
    assert type(error) is AtelierError
    assert error.message == "hm"
