"""Every error that lcp reports to a person.

LcpError                    a sentence: what failed, why, and what to type next
├── UsageError              the command line does not make sense
├── SettingsError           a setting has an invalid value
├── ModelError              a model cannot be found, read or loaded
│   ├── ModelNotFound       no file and no installed model has that name
│   │   └── NotHere         a model that `lcp pull` can download
│   ├── GgufError           a file is not GGUF, is truncated or damaged
│   └── NotEnoughMemory     the weights or the KV cache do not fit
├── NativeError             llama.cpp itself cannot run here
├── TemplateError           the model's chat template cannot render these messages
├── TooLong                 a message does not fit into the window
├── ContextFull             the KV cache has no free cell
├── AnswerDoesNotMatch      an answer to continue does not match the constraint
├── NotSupported            this engine cannot do that
├── DownloadError           a file cannot be downloaded, or not be saved here
└── SessionError            a saved chat cannot be found, read or written
    └── AmbiguousChat       a name or a part of an id matches several chats

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
    """The command line does not make sense."""

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


class GgufError(ModelError):
    """A file is not GGUF, or its header is truncated, damaged or would mislead llama.cpp."""


class NotEnoughMemory(ModelError):
    """The weights, the KV cache or the compute buffers could not be allocated."""


class NativeError(LcpError):
    """The installed llama.cpp cannot run on this machine."""


class TemplateError(LcpError):
    """The model's chat template cannot render these messages."""


class TooLong(LcpError):
    """A message does not fit into the window: `why`; the `ways` out; the `tokens` of the prompt
    that it needs, and the `room` for them."""

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


class AmbiguousChat(SessionError):
    """A name or a part of an id matches several saved chats."""

    exit_code = 2
