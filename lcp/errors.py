"""Every error a person can meet.

LcpError                    a sentence that ends with what to do next
├── UsageError              the command line asks for something that has no meaning
├── SettingsError           a setting has a value it cannot have
├── ModelError              a model cannot be found, read or loaded
│   ├── ModelNotFound       no file, no installed model of that name
│   └── NotEnoughMemory     the weights or the KV cache do not fit
├── NativeError             llama.cpp itself cannot run here
├── TemplateError           the model's chat template cannot render these messages
├── TooLong                 a message is larger than the window
├── ContextFull             the KV cache has no cell left
└── SessionError            a saved chat cannot be found, read or written

The core raises them; `cli/` alone turns one into a line on stderr and an exit code.
"""


class LcpError(Exception):
    """A sentence for a person, ending with the next step."""

    exit_code = 1


class UsageError(LcpError):
    """The command line has no meaning as it stands."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting, from a flag, the environment or a file, has a value it cannot have."""


class ModelError(LcpError):
    """A model cannot be found, read or loaded."""


class ModelNotFound(ModelError):
    """No file and no installed model has that name."""


class NotEnoughMemory(ModelError):
    """The weights, the KV cache or the compute buffers could not be allocated."""


class NativeError(LcpError):
    """llama.cpp cannot run on this machine as it is installed."""


class TemplateError(LcpError):
    """The model's chat template cannot render these messages."""


class TooLong(LcpError):
    """A single message is larger than the window."""


class ContextFull(LcpError):
    """The KV cache has no free cell for the next token."""


class SessionError(LcpError):
    """A saved chat cannot be found, read or written."""
