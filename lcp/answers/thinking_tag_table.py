"""The tags with which families of models mark their thinking and their answer.

It is one table, with its sources. The output parser, thinking budgets and constraints use it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """The tags of a family of models.

    Tags that may also occur in an ordinary answer ("<answer>") need `signs`, by which such a model
    is recognized: all of them are in its chat template, or the only one is a special token of its
    vocabulary. Without signs, the tags apply to every model.
    """

    name: str
    source: str  # a file of llama.cpp's models/templates, or where else the tags are documented
    opener: str = ""  # begins the thinking
    closer: str = ""  # ends it
    headings: tuple[str, ...] = ()  # come between the thinking and the answer
    ends: tuple[str, ...] = ()  # come after an answer that the last heading or closer began
    then: str = ""  # the text between the closer and the answer
    signs: tuple[str, ...] = ()


FAMILIES = (
    Family("Qwen 3, DeepSeek R1, GLM, Nemotron, MiniMax M2, Reka Edge, SmolLM 3",
           "Qwen-Qwen3-0.6B.jinja", "<think>", "</think>"),
    Family("Apriel 1.5", "unsloth-Apriel-1.5.jinja", "<thinking>", "</thinking>"),
    Family("EXAONE Deep", "LG AI's model card of EXAONE-Deep", "<thought>", "</thought>"),
    Family("Seed-OSS", "ByteDance-Seed-OSS.jinja", "<seed:think>", "</seed:think>"),
    Family("MiniMax M3", "MiniMax-M3.jinja", "<mm:think>", "</mm:think>"),
    Family("Hunyuan 3", "tencent-Hy3.jinja", "<think:opensource>", "</think:opensource>"),
    Family("Ministral 3 Reasoning", "mistralai-Ministral-3-14B-Reasoning-2512.jinja",
           "[THINK]", "[/THINK]"),
    Family("Kimi VL Thinking", "Moonshot's model card of Kimi-VL-A3B-Thinking",
           "◁think▷", "◁/think▷"),
    Family("Command R7B, Command A", "CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja",
           "<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>",),
           ("<|END_RESPONSE|>",), "<|START_RESPONSE|>"),
    Family("Gemma 4", "google-gemma-4-31B-it.jinja", "<|channel>thought\n", "<channel|>"),
    Family("gpt-oss", "openai-gpt-oss-120b.jinja",
           "<|channel|>analysis<|message|>", "<|end|>",
           ("<|start|>assistant", "<|channel|>final<|message|>"), (),
           "<|start|>assistant<|channel|>final<|message|>"),
    Family("gpt-oss", "openai-gpt-oss-120b.jinja", "<|channel|>commentary<|message|>", "<|end|>"),
    Family("Apertus", "Apertus-8B-Instruct.jinja", "<|inner_prefix|>", "<|inner_suffix|>"),
    Family("Kimi K3", "Kimi-K3.jinja",
           "<|open|>think<|sep|>", "<|close|>think<|sep|>", ("<|open|>response<|sep|>",),
           ("<|close|>response<|sep|>", "<|close|>message<|sep|>"), "<|open|>response<|sep|>"),
    Family("OpenThinker, Sky-T1", "the model card of OpenThinker-7B",
           "<|begin_of_thought|>", "<|end_of_thought|>", ("<|begin_of_solution|>",),
           ("<|end_of_solution|>",), "\n\n<|begin_of_solution|>\n\n"),
    # Families with signs come last: for a tag that several families have, the last one counts.
    Family("Granite 3.3", "ibm-granite-granite-3.3-2B-Instruct.jinja",
           "<think>", "</think>", ("<response>",), ("</response>",), "<response>",
           ("write your response between <response></response>",)),
    Family("ERNIE 4.5 Thinking", "vLLM's ernie45 reasoning parser",
           "<think>", "</think>", ("<response>",), ("</response>",), "\n\n<response>\n",
           ("<response>", "think_mode")),
    Family("Hunyuan A13B, GLM-4.1V Thinking", "vLLM's hunyuan_a13b reasoning parser",
           "<think>", "</think>", ("<answer>",), ("</answer>",), "\n<answer>\n", ("<answer>",)),
    Family("Reka Flash 3", "Reka's model card of reka-flash-3",
           "<reasoning>", "</reasoning>", signs=("</reasoning>",)),
    Family("Apriel 1.5 and 1.6", "Apriel-1.6-15b-Thinker-fixed.jinja",
           "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", ("[BEGIN FINAL RESPONSE]",),
           ("[END FINAL RESPONSE]",), signs=("[BEGIN FINAL RESPONSE]",)),
    Family("Solar Open", "upstage-Solar-Open-100B.jinja",
           "<|think|>", "<|end|>", ("<|begin|>assistant", "<|content|>"), (),
           "<|begin|>assistant<|content|>", ("<|begin|>assistant<|think|>",)),
    Family("Muse Glimmer", "muse-glimmer.jinja",
           "to=self<|message|>", "<|eom|>", ("<|start|>assistant", "to=user<|message|>"), (),
           "<|start|>assistant to=user<|message|>", ("to=self<|message|>",)),
)  # fmt: skip


@dataclass(frozen=True)
class Tags:
    """The tags of one model."""

    # a tag before the answer -> the tag that closes it; "" for a heading
    openers: Mapping[str, str] = field(default_factory=dict)
    # a heading or a closer -> the tags after the answer that it begins
    ends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    then: Mapping[str, str] = field(default_factory=dict)  # closer -> text before the answer

    @property
    def all(self) -> frozenset[str]:
        """Every tag."""
        after = (end for ends in self.ends.values() for end in ends)
        return frozenset((*self.openers, *filter(None, self.openers.values()), *after))


NONE = Tags()  # for raw text


def tags(template: str = "", is_special: Callable[[str], bool] = lambda text: False) -> Tags:
    """The tags of a model with this chat template. `is_special` tells whether a text is one special
    token of its vocabulary."""
    openers: dict[str, str] = {}
    ends: dict[str, tuple[str, ...]] = {}
    then: dict[str, str] = {}
    for family in FAMILIES:
        signs = family.signs
        if not (
            all(sign in template for sign in signs) or (len(signs) == 1 and is_special(*signs))
        ):
            continue
        openers |= {family.opener: family.closer} | dict.fromkeys(family.headings, "")
        then |= {family.closer: family.then} if family.then else {}
        # the last heading begins the answer; without headings, the closer does
        begins = (family.headings or (family.closer,))[-1]
        ends |= {begins: family.ends} if family.ends else {}
    return Tags(openers, ends, then)


def thinks(template: str) -> bool:
    """Whether a chat template supports thinking."""
    words = ("enable_thinking", "thinking_mode", "reasoning_content", "message.thinking")
    pairs = ((o, c) for o, c in tags(template).openers.items() if c)
    # a closer may be the end of any message: "<|end|>"
    marks = (t.strip() for o, c in pairs for t in (o, c if "think" in c.lower() else o))
    return any(text in template for text in (*words, *marks))
