"""The headers of messages, in families that write every part of a completion as one.

OpenAI's harmony: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
<|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
Muse Glimmer:  to=self<|message|>...<|eom|><|start|>assistant to=user<|message|>...<|eot|>
"""

import re
from dataclasses import dataclass

from worker.output.text_source import Reading, Source

LONGEST_HEADER = 400  # characters
MESSAGE = "<|message|>"
RECIPIENT = re.compile(r"to=(?P<name>[^\s<]+)")
CHANNEL = re.compile(r"(?:<\|channel\|>|^)\s*(\w+)")
TO_ITSELF, TO_USER = "self", "user"


@dataclass(frozen=True, slots=True)
class Header:
    """Of a message."""

    is_reasoning: bool
    recipient: str  # "": the user


def read_header(source: Source, mark: str) -> Reading[Header]:
    """What is written between the message's first mark, which was read, and its text."""
    text = yield from source.until(MESSAGE, LONGEST_HEADER)
    return parse_header(text if mark == "<|channel|>" else text.removeprefix("assistant"))


def parse_header(text: str) -> Header:
    channel, recipient = CHANNEL.search(text), RECIPIENT.search(text)
    name = recipient["name"] if recipient else ""
    if name in (TO_ITSELF, TO_USER):
        return Header(name == TO_ITSELF, "")
    return Header(channel is not None and channel[1] == "analysis", name.removeprefix("functions."))
