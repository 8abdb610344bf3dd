"""The chat templates that are built into llama.cpp under a name: "chatml", "llama3"."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

from lcp.engine.llama_library import library


@functools.cache
def names() -> frozenset[str]:
    """The names of the templates."""
    c = library()
    n = c.llama_chat_builtin_templates(None, 0)
    found = (ctypes.c_char_p * n)()
    c.llama_chat_builtin_templates(found, n)
    return frozenset(name.decode() for name in found if name)


def apply(name: str, messages: Sequence[dict[str, Any]], ask: bool) -> str:
    """The text of the prompt. Raises ValueError if llama.cpp refuses the messages."""
    c = library()
    chat = (c.llama_chat_message * max(1, len(messages)))()
    for slot, message in zip(chat, messages, strict=False):
        # C strings end at a zero byte
        slot.role, slot.content = (
            str(message[key]).replace("\0", "").encode("utf-8", "replace")
            for key in ("role", "content")
        )
    room = 0
    while True:
        buffer = ctypes.create_string_buffer(room + 1)
        n = c.llama_chat_apply_template(name.encode(), chat, len(messages), ask, buffer, room)
        if n < 0:
            raise ValueError(f"llama.cpp does not apply its template {name!r} to these messages")
        if n <= room:
            return buffer.raw[:n].decode("utf-8", "replace")
        room = n
