"""OpenAI's harmony format: every part of a completion is a message with a header.

<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
<|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
"""

import re
from dataclasses import dataclass

from worker.output.source import Reading, Source

LONGEST_HEADER = 400  # characters
MESSAGE = "<|message|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>")
BORDERS = ("<|start|>", "<|channel|>")  # of the next message, where no end is written
MARKS = (*BORDERS, *ENDS, MESSAGE, "<|constrain|>")
RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
CHANNEL = re.compile(r"(?:<\|channel\|>|^)\s*(\w+)")
CONSTRAIN = re.compile(r"<\|constrain\|>")


@dataclass(frozen=True, slots=True)
class Header:
    """Of a message."""

    channel: str
    recipient: str  # "": the user


def read_header(source: Source, mark: str) -> Reading[Header]:
    """What is written between the message's first mark, which was read, and its text."""
    text = yield from source.until(MESSAGE, LONGEST_HEADER)
    return parse_header(text if mark == "<|channel|>" else text.removeprefix("assistant"))


def parse_header(text: str) -> Header:
    channel, recipient = CHANNEL.search(text), RECIPIENT.search(text)
    return Header(channel[1] if channel else "", recipient[1] if recipient else "")
