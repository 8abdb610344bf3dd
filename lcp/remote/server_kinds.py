"""What each kind of server can do: one table. `discovery` finds out which kind a server is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

OPENAI = {
    "temp": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
}


@dataclass(frozen=True)
class ServerKind:
    """One kind. What is not known of a kind counts as not there."""

    name: str
    samplers: Mapping[str, str] = field(default_factory=lambda: OPENAI)  # setting -> its field
    counts: bool = False  # tells the tokens of a prompt
    tells_cached: bool = False  # tells how many tokens it did not read again
    tells_progress: bool = False  # while it reads
    moves: bool = False  # reuses what comes after a gap in its cache
    reads_ahead: bool = False
    continues: bool = False  # an answer that was cut
    completes: bool = True  # text without a chat template (/v1/completions)
    schema: bool = True
    regex: str = ""  # the field of a regular expression
    grammar: str = ""  # the field of a grammar in GBNF
    probs: bool = False  # probabilities of an answer's tokens
    template: bool = False  # takes variables of the chat template
    effort: bool = False  # takes a reasoning effort
    no_effort: str = ""  # the effort that turns thinking off
    budget: str = ""  # the field of the most tokens of thinking
    thinking: str = ""  # the field of a message's earlier thinking
    drops: bool = False  # drops the oldest messages of a long chat without saying so
    unset: str = ""  # what it does about settings that are not sent, if that is a surprise


LLAMA = ServerKind(
    "llama-server",
    samplers=OPENAI
    | {n: n for n in ("top_k", "min_p", "repeat_penalty", "repeat_last_n")},
    counts=True, tells_cached=True, tells_progress=True, moves=True, reads_ahead=True,
    continues=True, grammar="grammar", probs=True, template=True, effort=True,
    budget="thinking_budget_tokens", thinking="reasoning_content",
)  # fmt: skip
VLLM = ServerKind(
    "vLLM",
    samplers=OPENAI | {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
    counts=True, tells_cached=True, continues=True, regex="structured_outputs", probs=True,
    template=True, effort=True, budget="thinking_token_budget", thinking="reasoning",
)  # fmt: skip
SGLANG = ServerKind(
    "SGLang",
    samplers=OPENAI | {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
    tells_cached=True, continues=True, regex="regex", probs=True, template=True, effort=True,
    thinking="reasoning_content",
)  # fmt: skip
OLLAMA = ServerKind(
    "Ollama", effort=True, no_effort="none", thinking="reasoning", drops=True,
    unset="Ollama uses temp 1 and top_p 1 unless you set them, whatever the model's file says.",
)  # fmt: skip
LM_STUDIO = ServerKind(
    "LM Studio",
    samplers=OPENAI | {"top_k": "top_k", "repeat_penalty": "repeat_penalty"},
    effort=True,
)
LLAMA_CPP_PYTHON = ServerKind(
    "llama-cpp-python",
    samplers=OPENAI | {n: n for n in ("top_k", "min_p", "repeat_penalty")},
    grammar="grammar", probs=True,
)  # fmt: skip
OTHER = ServerKind("OpenAI-compatible server", completes=False)
