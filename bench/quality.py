"""How good answers are when the window has slid: by a move, by a hole, by reading again.

    python -m bench.quality MODEL.gguf [-n CONVERSATIONS] [--json FILE]

20 conversations of 9 turns: a person tells the facts below and asks, the model's own answers (lcp's
default sampling, seeded) are the other half. Then the 2, 3 or 4 oldest turns after the system text
leave, and a last question is put to these caches:

full     nothing is dropped: the cache as it grew during the talk
full'    the same text read in an empty cache: what rounding does
re-read  the kept turns, read in an empty cache
move     the cache as it grew, the turns cut out, the rest moved down: Context.feed(move=True)
hole     cut out but not moved, positions run on: what M-RoPE models get

All read one answer: what re-read says greedily, at most 48 tokens. At each of its positions
KL(P || Q) = sum P ln(P / Q) over the vocabulary, in nats; se: the standard error over the means of
conversations. top-1: how often P and Q put the same token first. same: tokens until they do not
(median; beside re-read, where greedy answers part); never: conversations where they do not part;
count: partings where re-read's two best logits are over 0.01 apart. Slide n: a window of 4 turns
slid n times by one turn, each time in the cache that the slide before left; slide 0 is reading
twice and must be 0. These and full' are of the first 6 conversations. All goes through lcp's own
prompts and Context; only for the hole this script reaches in, for the kind of memory.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcp.engine.context import Context, State
from lcp.engine.llama_library import StopByte, library
from lcp.engine.model import Model
from lcp.engine.prompt import PromptWriter
from lcp.engine.sampler import Sampler
from lcp.engine.template import Template
from lcp.engine_interface import PromptMessage
from lcp.machine import physical_cores
from lcp.settings import Sampling

ANSWER, SIZE, MARGIN = 48, 1536, 1e-2
DEEP, WINDOW, SLIDES = 6, 4, 5  # drift: conversations, turns that fit, slides
PAIRS = {"full": ("full'", "re-read", "move", "hole"), "re-read": ("move", "hole")}
SYSTEM = PromptMessage("system", "You are a helpful assistant. Answer in two sentences.")
LAST = ("What should I do first, and why?", "Please sum up our plan.", "What have we forgotten?")
ASK = ("What does that mean for me?", "What would you do about it?", "Is that bad?", "And now?")
AGAIN = """Can you give me an example?/Why is that so?/What comes first?/Are you sure about it?/What
would go wrong without it?/How long does it take?/Is there another way?/Who can help me?"""
TOPICS = """a garden in the north: The soil is heavy clay. The last frost is in May. I love leeks
a trip to Lisbon: We are two adults and a girl of six. We have 900 euros. The hotel is in Alfama
baking bread: My sourdough is nine days old. My oven goes up to 230 degrees. I use rye flour
learning the cello: I am fifty-two. My left hand hurts. In June I play at my sister's wedding
an old bicycle: It is a Peugeot from 1983. Two spokes are broken. I have no tools but a hammer
a school project: We chose the volcano Etna. Tom builds a model with vinegar. It is due on Thursday
a shy cat: Her name is Pepper and she is four. She hides under the bath. She eats only tuna
writing a crime novel: The detective is a baker named Ada. A clock was stolen. It plays in winter
running a half marathon: My best is 2 hours 9 minutes. My right knee hurts. It is in September
a small bakery: We sell 200 rolls a day. A supermarket opens next door. My son wants to sell coffee
solar panels: The roof looks south-west. A tall oak shades it. The firm asks 7,800 euros
a chess club: We are fourteen people. The youngest is Mira, who is nine. We own three clocks
a talk on tea: It lasts fifteen minutes. I begin with China. Robert Fortune smuggled plants in 1848
a damp cellar: The house is from 1911. Water comes in after rain. A builder asks 12,000 pounds
moving to Norway: My new job is in Bergen. I speak no Norwegian. My dog is a beagle
a birthday party: My grandmother turns ninety. She loves Schubert. Uncle Paul wants to give a speech
bees on a balcony: I live on the fourth floor in Berlin. It looks east. A neighbour fears stings
photographs of stars: My camera is twelve years old. My tripod shakes. I live in a bright city
a sailing boat: She is called Heron and is of wood. There is a crack under the mast. I sail alone
saving money: I earn 2,100 pounds a month. The rent takes 850. I owe my brother 600"""


Row = tuple[str, dict[str, Any]]  # its name, and what two caches are along one answer


class Answer(NamedTuple):
    """What one cache makes of a prompt, and of the answer it is given to read."""

    tokens: list[int]
    logp: np.ndarray  # (positions, vocabulary): ln p before each token
    after: State | None  # the cache when the prompt was read


class Bench:
    """One model, and a new cache for everything that is asked."""

    def __init__(self, path: Path) -> None:
        self.model = m = Model.load(path, n_gpu_layers=0)
        self._writer = PromptWriter(Template(m.chat_template, now=datetime(2026, 1, 1)), m)
        stop = StopByte()
        self._cache = partial(Context, m, SIZE, stop, threads=physical_cores(), flash_attn="off")

    def measure(self, lines: list[str], seed: int) -> Iterator[Row]:
        """Hold a conversation and let its window slide: once, then again and again."""
        turns, grown = self._talk(lines[:-1], seed)
        whole, kept = (self._prompt(turns[out:], lines[-1]) for out in (0, 2 + seed % 3))
        answers = self._slid(kept, {"move": grown, "hole": grown})
        fresh = answers["re-read"]
        answers["full"] = self._answer(whole, fresh, grown)
        if seed < DEEP:
            answers["full'"] = self._answer(whole, fresh)
        yield from _compare(answers)
        held: dict[str, State | None] = {"move": None, "hole": None}
        for n in range(SLIDES + 1 if seed < DEEP else 0):
            answers = self._slid(self._prompt(turns[n : n + WINDOW], lines[n + WINDOW]), held)
            held = {how: answers[how].after for how in held}
            yield from _compare(answers, f"slide {n}: ")

    def _prompt(self, turns: list[Any], question: str) -> list[int]:
        asked = PromptMessage("user", question)
        return self._writer.write([SYSTEM, *chain(*turns), asked]).tokens

    def _talk(self, lines: list[str], seed: int) -> tuple[list[Any], State | None]:
        """A conversation, its answers ended at a full stop behind 50 tokens; the cache of it."""
        turns: list[Any] = []
        with closing(self._cache()) as cache:
            for line in lines:
                list(cache.feed(prompt := self._prompt(turns, line)))
                said: list[int] = []
                with closing(Sampler(self.model, Sampling(), seed, prompt)) as sampler:
                    while not self.model.is_end(token := sampler.sample(cache)):
                        cache.append(token)
                        said.append(token)
                        if len(said) > 50 and self.model.piece(token).endswith(b"."):
                            break
                text, ids = self.model.text(said), tuple(said)
                answer = PromptMessage("assistant", text, "", ids, self.model.fingerprint)
                turns.append([PromptMessage("user", line), answer])
            return turns, cache.save()

    def _slid(self, prompt: list[int], held: dict[str, State | None]) -> dict[str, Answer]:
        """The answers of an empty cache and of those that slide, to the same prompt."""
        fresh = self._answer(prompt)
        slid = {how: self._answer(prompt, fresh, held[how], how) for how in held}
        return slid | {"re-read": fresh}

    def _answer(
        self, prompt: list[int], like: Any = None, held: State | None = None, slide: Any = None
    ) -> Answer:
        """Read `prompt` in an empty cache, or in one that holds `held` and may "move" or leave a
        "hole"; then the answer `like`, or the greedy one."""
        with closing(self._cache()) as cache:
            cache._cells.kind = replace(cache.kind, slide=slide or "reread")
            usable = not held or cache.restore(held)
            *_, progress = cache.feed(prompt, move=bool(slide))
            if not usable or (held and slide and not progress.moved):
                raise SystemExit("This model's cache cannot slide, or cannot be put back.")
            after, tokens, rows = cache.save(), [], []
            for i in range(len(like.tokens) if like else ANSWER):
                logits = library().llama_get_logits_ith(cache.handle, -1)
                row = np.ctypeslib.as_array(logits, (self.model.n_vocab,)).astype(np.float64)
                rows.append(row - np.logaddexp.reduce(row))
                tokens.append(like.tokens[i] if like else int(row.argmax()))
                if self.model.is_end(tokens[-1]):
                    break
                cache.append(tokens[-1])
            return Answer(tokens, np.array(rows), after)


def _compare(answers: dict[str, Answer], title: str = "") -> Iterator[Row]:
    """All pairs of caches that are there."""
    for one, other in ((p, q) for p in PAIRS for q in PAIRS[p] if {p, q} <= answers.keys()):
        p, q = answers[one].logp, answers[other].logp
        top1 = p.argmax(axis=1) == q.argmax(axis=1)
        second, best = np.sort(answers["re-read"].logp[top1.argmin()])[-2:]
        counts = bool(not top1.all() and best - second > MARGIN)
        kl = (np.exp(p) * (p - q)).sum(axis=1)
        yield f"{title}{one}, {other}", dict(kl=kl.tolist(), top1=top1.tolist(), counts=counts)


def conversations() -> Iterator[list[str]]:
    """What the person says, turn by turn; the last line comes after the slide."""
    for seed, topic in enumerate(TOPICS.split("\n")):
        draw = random.Random(seed)
        subject, told = topic.split(": ")
        facts, ask = told.split(". "), draw.sample(ASK, 2)
        lines = draw.sample(AGAIN.replace("\n", " ").split("/"), 6)
        lines.insert(0, f"I need some advice about {subject}. {facts[0]}. Where should I begin?")
        lines.insert(2, f"{facts[1]}. {ask[0]}")
        lines.insert(5, f"{facts[2]}. {ask[1]}")
        yield [*lines, LAST[seed // 3 % 3]]


def _row(name: str, found: list[dict[str, Any]]) -> str:
    kl, top1 = (np.concatenate([one[key] for one in found]) for key in ("kl", "top1"))
    se = np.std([np.mean(one["kl"]) for one in found], ddof=1) / len(found) ** 0.5
    same = np.median([[*one["top1"], False].index(False) for one in found])
    never, counts = sum(all(one["top1"]) for one in found), sum(one["counts"] for one in found)
    middle = f"{np.median(kl):.4f} | {np.quantile(kl, 0.95):.4f} | {kl.max():.3f}"
    rest = f"{top1.mean():.3f} | {same:.0f} | {never}/{len(found)} | {counts}"
    return f"| {name} | {kl.mean():.4f} ± {se:.4f} | {middle} | {rest} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("-n", type=int, default=20, help="conversations, 2 to 20 (default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    asked = parser.parse_args()
    bench, rows = Bench(asked.model), defaultdict[str, list[Any]](list)
    for seed, lines in enumerate([*conversations()][: asked.n]):
        for name, found in bench.measure(lines, seed):
            rows[name].append(found)
    print("| P, Q | KL mean ± se | median | p95 | max | top-1 | same | never | count |")
    print("|---" * 9 + "|", *(_row(name, found) for name, found in rows.items()), sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps({"model": asked.model.name, "rows": rows}))


if __name__ == "__main__":
    main()
