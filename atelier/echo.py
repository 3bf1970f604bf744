"""Whether a completion tells its prompt, as a request carries that to a worker."""

from enum import Enum

from protos import inference_pb2 as pb


class Echo(Enum):
    """The values are the wire's."""

    FIRST = pb.ECHO_FIRST  # the prompt, then the completion
    ALONE = pb.ECHO_ALONE  # the prompt, and nothing is generated


def set_echo(submit: pb.Submit, echo: Echo | None) -> None:
    if echo is not None:
        submit.echo = echo.value


def read_echo(submit: pb.Submit) -> Echo | None:
    return Echo(submit.echo) if submit.echo else None
