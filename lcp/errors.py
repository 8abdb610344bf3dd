"""The errors that lcp shows to a person.

LcpError                    a sentence: what failed, why, and what to type next
├── UsageError              a wrong command line
├── SettingsError           a setting has an invalid value
├── ModelError              a model cannot be found, read or loaded
│   ├── ModelNotFound       no file and no installed model has that name
│   │   ├── NotHere         a model that `lcp pull` can download
│   │   └── NoModelHere     there is no model at all on this computer
│   ├── GgufError           a file is not GGUF, is truncated or damaged
│   └── NotEnoughMemory     the weights or the KV cache do not fit
├── NativeError             llama.cpp itself cannot run here
│   └── DoesNotRun          and it does not say why
├── TemplateError           the model's chat template cannot render these messages
├── TooLong                 a message does not fit into the window
├── ContextFull             the KV cache has no free cell
├── AnswerDoesNotMatch      an answer to continue does not match the constraint
├── NotSupported            this engine cannot do that
├── NetworkError            an address, a proxy or a certificate cannot be used
│   ├── DownloadError       a file cannot be downloaded, or not be saved here
│   └── ServerError         a server cannot be reached, or answers with an error
│       ├── Miscounted      the prompt has more tokens than the engine counted
│       └── ChooseModel     a server has several models, and none was named
└── SessionError            a saved chat cannot be found, read or written
    ├── NoSavedChat         there is no saved chat at all
    └── AmbiguousChat       a name or a part of an id matches several chats

The core raises them. A chat shows them and continues; outside of a chat, `cli/` prints them on
stderr and exits with their `exit_code`. chat/error_advice.py adds what to type.
"""

import os
from collections.abc import Mapping

# What to type if llama.cpp is too old for a model, and what helps if it cannot load a file.
UPGRADE = "pip install --upgrade llama-cpp-python"
ANOTHER_FILE = (
    f"Use a newer conversion or another quantization of this model, or upgrade: {UPGRADE}"
)


class LcpError(Exception):
    """A sentence for a person. `change` names options that would help and a value for each:
    {"kv_type": "f16"}; chat/ and cli/ spell them as flags. `again`: answering again helps."""

    exit_code = 1
    again = False

    def __init__(self, *sentence: object, change: Mapping[str, str] | None = None) -> None:
        super().__init__(*sentence)
        self.change = change or {}


def refused(error: OSError) -> LcpError:
    """The error for a file, a folder or an output that the system refuses."""
    why, place = error.strerror or error, error.filename
    if place is None:
        return LcpError(f"The output cannot be written: {why}. Make room and run it again.")
    return LcpError(f"Cannot use {os.fsdecode(place)}: {why}. Check the path, or name another one.")


class UsageError(LcpError):
    """The command line is wrong."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting, from a flag, the environment or a file, has an invalid value."""


class ModelError(LcpError):
    """A model cannot be found, read or loaded."""


class ModelNotFound(ModelError):
    """No file and no installed model has that name. `name`: what to look for elsewhere."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class NotHere(ModelNotFound):
    """The model is not on this computer, but the Hub has it under `name`."""


class NoModelHere(ModelNotFound):
    """There is no model at all on this computer. `name`: the smallest one to download."""


class GgufError(ModelError):
    """A file is not GGUF, or its header is truncated, damaged or would mislead llama.cpp."""


class NotEnoughMemory(ModelError):
    """The weights, the KV cache or the compute buffers could not be allocated."""


class NativeError(LcpError):
    """The installed llama.cpp cannot run on this machine."""


class DoesNotRun(NativeError):
    """llama.cpp, or a process that would run it, does not start here, and does not say why."""


class TemplateError(LcpError):
    """The model's chat template cannot render these messages."""


class TooLong(LcpError):
    """A prompt of `tokens` does not fit into the window, which has `room` for fewer.

    `front`: tokens of what always stays before the message: the system text, and the pinned turns
    if `pinned`. `stopped`: earlier turns could leave, but the settings do not allow it. `why`: a
    clause for another sentence.
    """

    def __init__(
        self, tokens: int, room: int, *, front: int = 0, pinned: bool = False, stopped: bool = False
    ) -> None:
        self.tokens, self.room, self.pinned, self.stopped = tokens, room, pinned, stopped
        self.front = front
        need = f"({front if front > room else tokens:,} tokens, room for {room:,})"
        if stopped:
            self.why = f"the context is full {need}"
        elif front > room:
            what = "the system text and the pinned turns" if pinned else "the system text"
            self.why = f"no message fits after {what} {need}"
        else:
            self.why = f"this message does not fit {need}"
        super().__init__(f"{self.why[0].upper()}{self.why[1:]}.")


class ContextFull(LcpError):
    """The KV cache has no free cell: it holds `size` tokens, and `needed` are wanted."""

    def __init__(self, needed: int, size: int) -> None:
        super().__init__(
            f"The prompt has {needed:,} tokens, but the context holds {size:,}. Shorten it."
        )
        self.needed, self.size = needed, size


class AnswerDoesNotMatch(LcpError):
    """An answer that was cut does not match the constraint with which it should continue."""

    again = True


class NotSupported(LcpError):
    """This engine cannot do what was asked."""

    def __init__(
        self, message: str, *, again: bool = False, change: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, change=change)
        self.again = again


class NetworkError(LcpError):
    """An address, or a proxy or a certificate of this computer, cannot be used."""


class ServerError(NetworkError):
    """A server cannot be reached, or answers with an error. status: the HTTP status, if any.
    retry_after: seconds to wait before another try; None if another try would not help."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        change: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, change=change)
        self.status, self.retry_after = status, retry_after


class Miscounted(ServerError):
    """The prompt has more tokens than the engine counted: `tokens` for a context of `size`; 0 for a
    number that the server does not tell. The engine has corrected its count: try again."""

    def __init__(self, message: str, tokens: int, size: int) -> None:
        super().__init__(message, status=400)
        self.tokens, self.size = tokens, size


class ChooseModel(ServerError):
    """A server has several models, and the person named none."""

    exit_code = 2


class DownloadError(NetworkError):
    """A file or an answer of a server cannot be fetched, or cannot be saved here.

    retryable: whether the same request may work a moment later. status: the HTTP status, if there
    was one. retry_after: the seconds for which the server asks clients to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable, self.status, self.retry_after = retryable, status, retry_after


class SessionError(LcpError):
    """A saved chat cannot be found, read or written."""


class NoSavedChat(SessionError):
    """The chat that was asked for is not here, nor any other; `one_shot`: the id of the last one
    that only a script used, if there is one."""

    def __init__(self, message: str, one_shot: str = "") -> None:
        super().__init__(message)
        self.one_shot = one_shot


class AmbiguousChat(SessionError):
    """A name or a part of an id matches several saved chats."""

    exit_code = 2
