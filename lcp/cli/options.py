"""The options of the command line that carry settings; several commands share them.

Values stay text here: lcp.settings knows what they may be. Spellings are llama.cpp's.
"""

from typing import Annotated

import typer

from lcp.cli import completion


def _flag(*names: str, help: str, metavar: str | None = None):  # type: ignore[no-untyped-def]
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


System = Annotated[
    str | None, _flag("-s", "--system", metavar="TEXT|@FILE", help="How the model should behave.")
]
Persona = Annotated[
    str | None,
    typer.Option(
        "--persona",
        metavar="NAME",
        help="A [persona.NAME] of config.toml.",
        show_default=False,
        autocompletion=completion.persona,
    ),
]
Temp = Annotated[
    str | None, _flag("--temp", metavar="N", help="Randomness; 0 takes the likeliest token.")
]
TopK = Annotated[str | None, _flag("--top-k", metavar="N", help="Draw from the N likeliest.")]
TopP = Annotated[
    str | None, _flag("--top-p", metavar="N", help="Draw from the likeliest that sum to N.")
]
MinP = Annotated[
    str | None, _flag("--min-p", metavar="N", help="Drop those under this share of the likeliest.")
]
RepeatPenalty = Annotated[
    str | None, _flag("--repeat-penalty", metavar="N", help="Above 1: less repetition.")
]
FrequencyPenalty = Annotated[
    str | None, _flag("--frequency-penalty", metavar="N", help="Less likely each time said.")
]
PresencePenalty = Annotated[
    str | None, _flag("--presence-penalty", metavar="N", help="Less likely once said.")
]
Seed = Annotated[
    str | None, _flag("--seed", metavar="N", help="The same seed gives the same answer.")
]
MaxTokens = Annotated[
    str | None, _flag("-n", "--max-tokens", metavar="N", help="Longest answer, in tokens.")
]
Stop = Annotated[
    list[str] | None, _flag("--stop", metavar="TEXT", help="End at this text; repeatable.")
]
CtxSize = Annotated[
    str | None, _flag("-c", "--ctx-size", metavar="N|auto", help="Tokens the model sees at once.")
]
NGpuLayers = Annotated[
    str | None, _flag("-ngl", "--n-gpu-layers", metavar="N|auto|all", help="Layers on the GPU.")
]
Threads = Annotated[
    str | None, _flag("-t", "--threads", metavar="N|auto", help="Threads that compute.")
]
# llama.cpp's other names of these two, understood but not listed
Predict = Annotated[str | None, typer.Option("--predict", hidden=True)]
CacheType = Annotated[str | None, typer.Option("-ctk", "-ctv", hidden=True)]
KvType = Annotated[
    str | None, _flag("--kv-type", metavar="f16|q8_0|q4_0", help="Number format of the KV cache.")
]
FlashAttn = Annotated[
    str | None, _flag("--flash-attn", metavar="auto|on|off", help="Flash attention kernels.")
]
Overflow = Annotated[
    str | None,
    _flag("--overflow", metavar="slide|summarize|truncate|stop", help="When the window is full."),
]
Slide = Annotated[
    str | None, _flag("--slide", metavar="move|reread", help="How kept turns move up.")
]
Think = Annotated[
    str | None, _flag("--think", metavar="on|off|hide", help="Thinking, where the model can.")
]
ReasoningEffort = Annotated[
    str | None, _flag("--reasoning-effort", metavar="low|medium|high", help="How hard it thinks.")
]
ReasoningBudget = Annotated[
    str | None, _flag("--reasoning-budget", metavar="N|auto", help="Tokens of thinking, at most.")
]
ChatTemplateKwargs = Annotated[
    str | None,
    _flag("--chat-template-kwargs", metavar="JSON", help="More variables for the chat template."),
]
Plain = Annotated[bool, typer.Option("--plain", help="Show Markdown as the model typed it.")]
LoopGuard = Annotated[
    str | None, _flag("--loop-guard", metavar="on|off", help="Stop an answer that repeats itself.")
]
Keys = Annotated[str | None, _flag("--keys", metavar="emacs|vi", help="Keys of the line editor.")]
JsonSchema = Annotated[
    str | None,
    _flag("--json-schema", metavar="FILE|{…}", help="Answer in JSON that this schema allows."),
]
Grammar = Annotated[
    str | None,
    _flag("--grammar", metavar="FILE|GBNF", help="Answer in the language of this grammar."),
]
