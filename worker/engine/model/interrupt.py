"""Ends a llama_decode call from another thread."""

import ctypes

from llama_cpp import llama_cpp as ll


class Interrupt:
    """A flag that llama.cpp reads between the operations of a graph: if it is set, the call ends.

    llama.cpp calls a function for that. A Python function would wait for the interpreter's lock each time, a thousand
    times in a call; so it is C's strlen, which returns 0 for an empty string (continue) and 1 for "x" (end).
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)
        self._check = ctypes.cast(ctypes.CDLL(None).strlen, ll.ggml_abort_callback)

    def attach(self, context: int) -> None:
        """Let this flag end the calls of a llama_context; has to outlive it. Devices other than the CPU ignore it."""
        ll.llama_set_abort_callback(context, self._check, ctypes.cast(self._text, ctypes.c_void_p))

    def is_set(self) -> bool:
        return self._text[0] != b"\0"

    def set(self) -> None:
        self._text[0] = b"x"

    def clear(self) -> None:
        self._text[0] = b"\0"
