"""The framing of server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

PREFIX, SUFFIX = b"data: ", b"\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would hold tokens back
}


def frame(data: bytes) -> bytes:
    return PREFIX + data + SUFFIX


def named_frame(event: str, data: bytes) -> bytes:
    return b"event: " + event.encode() + b"\n" + frame(data)
