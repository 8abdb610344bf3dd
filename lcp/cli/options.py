"""The options of the command line that carry settings; several commands share them.

Values stay text here: lcp.settings knows what they may be, and what the help and the Tab key show
of that comes from its declarations. Spellings are llama.cpp's.
"""

from typing import Annotated

import typer

from lcp.cli import completion
from lcp.settings import OPTIONS


def _flag(  # type: ignore[no-untyped-def]
    *names: str, help: str, metavar: str | None = None, hidden: bool = False, of: str = ""
):
    """An option for the setting that the last name spells, or for the setting `of`."""
    setting = of or names[-1].removeprefix("--").replace("-", "_")
    rule = OPTIONS[setting].metadata if setting in OPTIONS else {}
    choices, words = rule.get("choices", ()), tuple(rule.get("words", ()))
    return typer.Option(
        *names,
        help=help,
        metavar=metavar or "|".join(choices or ("N", *words)),
        hidden=hidden,
        show_default=False,
        autocompletion=completion.one_of(choices or words) if choices or words else None,
    )


System = Annotated[
    str | None,
    _flag("-s", "--system", metavar="TEXT|@FILE", help="System text: how the model should behave."),
]
Persona = Annotated[
    str | None,
    typer.Option(
        "--persona",
        metavar="NAME",
        help="Settings of [persona.NAME] in config.toml.",
        show_default=False,
        autocompletion=completion.persona,
    ),
]
Temp = Annotated[
    str | None, _flag("--temp", help="Randomness; 0 always takes the likeliest token.")
]
TopK = Annotated[str | None, _flag("--top-k", help="Sample from the N most likely tokens.")]
TopP = Annotated[
    str | None, _flag("--top-p", help="Sample from the likeliest tokens that sum to N.")
]
MinP = Annotated[
    str | None, _flag("--min-p", help="Drop tokens below this share of the likeliest.")
]
RepeatPenalty = Annotated[
    str | None, _flag("--repeat-penalty", help="Penalty for repetition; 1 is none.")
]
FrequencyPenalty = Annotated[
    str | None, _flag("--frequency-penalty", help="Penalty for each time a token was used.")
]
PresencePenalty = Annotated[
    str | None, _flag("--presence-penalty", help="Penalty for a token that was used.")
]
Seed = Annotated[
    str | None, _flag("--seed", help="Random seed; the same one gives the same answer.")
]
MaxTokens = Annotated[str | None, _flag("-n", "--max-tokens", help="Longest answer, in tokens.")]
Stop = Annotated[
    list[str] | None,
    _flag("--stop", metavar="TEXT", help="End the answer at this text; repeatable."),
]
CtxSize = Annotated[str | None, _flag("-c", "--ctx-size", help="Context window, in tokens.")]
NGpuLayers = Annotated[
    str | None, _flag("-ngl", "--n-gpu-layers", help="Layers to offload to the GPU.")
]
Threads = Annotated[str | None, _flag("-t", "--threads", help="CPU threads to compute with.")]
# llama.cpp's other names of these two, understood but not listed
Predict = Annotated[
    str | None, _flag("--predict", hidden=True, of="max_tokens", help="--max-tokens.")
]
CacheType = Annotated[
    str | None, _flag("-ctk", "-ctv", hidden=True, of="kv_type", help="--kv-type.")
]
KvType = Annotated[str | None, _flag("--kv-type", help="Number format of the KV cache.")]
FlashAttn = Annotated[str | None, _flag("--flash-attn", help="Flash attention.")]
Overflow = Annotated[
    str | None,
    _flag("--overflow", help="Action when the context is full."),
]
Slide = Annotated[
    str | None, _flag("--slide", help="Method that moves kept turns up in the KV cache.")
]
Think = Annotated[str | None, _flag("--think", help="Thinking, for models that support it.")]
ReasoningEffort = Annotated[
    str | None, _flag("--reasoning-effort", help="Reasoning effort, for models that support it.")
]
ReasoningBudget = Annotated[
    str | None, _flag("--reasoning-budget", help="Most tokens of thinking.")
]
ChatTemplateKwargs = Annotated[
    str | None,
    _flag("--chat-template-kwargs", metavar="JSON", help="Variables for the chat template."),
]
Plain = Annotated[bool, typer.Option("--plain", help="Show Markdown as the model typed it.")]
LoopGuard = Annotated[str | None, _flag("--loop-guard", help="Stop an answer that repeats itself.")]
Keys = Annotated[str | None, _flag("--keys", help="Key bindings of the line editor.")]
JsonSchema = Annotated[
    str | None,
    _flag("--json-schema", metavar="FILE|{…}", help="Answer in JSON that matches this schema."),
]
Regex = Annotated[
    str | None,
    _flag("--regex", metavar="RE", help="Answer in text that matches this expression."),
]
Grammar = Annotated[
    str | None,
    _flag("--grammar", metavar="FILE|GBNF", help="Answer in text that matches this grammar."),
]
