"""The kinds of servers, and what each can do: one table. `discovery` tells the kind of a server."""

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
    """A kind of server. What lcp does not know about a kind counts as missing."""

    name: str
    # setting -> field of the request
    samplers: Mapping[str, str] = field(default_factory=lambda: OPENAI)
    counts: bool = False  # counts the tokens of a prompt
    tells_cached: bool = False  # tells how many tokens of a prompt were in its cache
    tells_progress: bool = False  # sends progress while it reads
    moves: bool = False  # moves cached tokens over a gap
    reads_ahead: bool = False
    continues: bool = False  # continues an answer that was stopped
    continues_thinking: bool = False  # also one that has no text yet
    continues_schema: bool = False  # also one with a JSON schema; others begin the schema again
    stops: bool = False  # accepts stop strings, and tells whether one of them ended the answer
    completes: bool = True  # continues text without a chat template (/v1/completions)
    schema: bool = True
    regex: str = ""  # the field for a regular expression
    grammar: str = ""  # the field for a GBNF grammar
    probs: bool = False  # sends the probabilities of an answer's tokens
    template: bool = False  # takes variables of the chat template
    effort: bool = False  # takes a reasoning effort
    no_effort: str = ""  # the effort that turns thinking off
    budget: str = ""  # the field for the most tokens of thinking
    thinking: str = ""  # the field for the thinking of an earlier message
    drops: bool = False  # silently drops the oldest messages of a long chat
    unset: str = ""  # a surprise about settings that are not sent, as a sentence


LLAMA = ServerKind(
    "llama-server",
    samplers=OPENAI
    | {n: n for n in ("top_k", "min_p", "repeat_penalty", "repeat_last_n")},
    counts=True, tells_cached=True, tells_progress=True, moves=True, reads_ahead=True,
    continues=True, continues_thinking=True, continues_schema=True, grammar="grammar", probs=True,
    template=True, effort=True,
    budget="thinking_budget_tokens", thinking="reasoning_content",
)  # fmt: skip
VLLM = ServerKind(
    "vLLM",
    samplers=OPENAI | {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
    counts=True, tells_cached=True, continues=True, stops=True, regex="structured_outputs",
    probs=True, template=True, effort=True, budget="thinking_token_budget", thinking="reasoning",
)  # fmt: skip
SGLANG = ServerKind(
    "SGLang",
    samplers=OPENAI | {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
    tells_cached=True, continues=True, stops=True, regex="regex", probs=True, template=True,
    effort=True,
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
