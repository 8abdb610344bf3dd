"""Every error a person can meet.

LcpError                    a sentence that ends with what to do next
├── UsageError              the command line asks for something that has no meaning
├── SettingsError           a setting has a value it cannot have
├── ModelError              a model cannot be found, read or loaded
│   ├── ModelNotFound       no file, no installed model of that name
│   │   └── NotHere         a model that `lcp pull` can bring
│   ├── GgufError           a file is no GGUF, is cut off or damaged
│   └── NotEnoughMemory     the weights or the KV cache do not fit
├── NativeError             llama.cpp itself cannot run here
├── TemplateError           the model's chat template cannot render these messages
├── TooLong                 a message does not fit into the window
├── ContextFull             the KV cache has no cell left
├── AnswerDoesNotMatch      an answer to continue does not match the constraint
├── NotSupported            this engine cannot do that
├── DownloadError           a file on a server cannot be had, or not be kept here
└── SessionError            a saved chat cannot be found, read or written
    └── AmbiguousChat       a name or a part of an id fits several of them

The core raises them; `cli/` alone turns one into a line on stderr and an exit code.
"""

from collections.abc import Mapping


class LcpError(Exception):
    """A sentence for a person. `change` names options that would help and a value for each:
    {"kv_type": "f16"}; chat/ and cli/ spell them as flags."""

    exit_code = 1

    def __init__(self, *sentence: object, change: Mapping[str, str] | None = None) -> None:
        super().__init__(*sentence)
        self.change = change or {}


class UsageError(LcpError):
    """The command line has no meaning as it stands."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting, from a flag, the environment or a file, has a value it cannot have."""


class ModelError(LcpError):
    """A model cannot be found, read or loaded."""


class ModelNotFound(ModelError):
    """No file and no installed model has that name. `name`: what to look for elsewhere."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class NotHere(ModelNotFound):
    """The model is not on this computer, but the Hub has it under `name`."""


class GgufError(ModelError):
    """A file is no GGUF, or its header is cut off, damaged or would mislead llama.cpp."""


class NotEnoughMemory(ModelError):
    """The weights, the KV cache or the compute buffers could not be allocated."""


class NativeError(LcpError):
    """llama.cpp cannot run on this machine as it is installed."""


class TemplateError(LcpError):
    """The model's chat template cannot render these messages."""


class TooLong(LcpError):
    """A message does not fit into the window: `why`, what to do about it (`ways`), the `tokens`
    of the prompt it needs and the `room` there is."""

    def __init__(self, why: str, ways: str, tokens: int, room: int) -> None:
        super().__init__(". ".join(part[:1].upper() + part[1:] for part in (why, ways)) + ".")
        self.why, self.ways, self.tokens, self.room = why, ways, tokens, room


class ContextFull(LcpError):
    """The KV cache has no free cell: it holds `size` tokens, and `needed` are wanted."""

    def __init__(self, needed: int, size: int) -> None:
        super().__init__(
            f"The prompt has {needed:,} tokens, but the context holds {size:,}. Shorten it.",
            change={"ctx_size": str(-(-needed // 256) * 256)},
        )
        self.needed, self.size = needed, size


class AnswerDoesNotMatch(LcpError):
    """An answer that was cut does not match the constraint with which it should continue."""


class NotSupported(LcpError):
    """This engine cannot do what was asked."""


class DownloadError(LcpError):
    """Something on a server cannot be had, or cannot be kept here.

    retryable: whether the same may work a moment later. status: what the server answered, if it
    did. retry_after: seconds that it wants to be left alone.
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


class AmbiguousChat(SessionError):
    """A name or a part of an id fits several saved chats."""

    exit_code = 2
