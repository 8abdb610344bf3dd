"""How good answers are when the window has slid: by a move, by a hole, by reading again.

    python -m bench.quality MODEL.gguf [-n CONVERSATIONS] [--json FILE]

20 conversations of 9 turns: a person tells the facts below and asks; the model's own answers (lcp's
default sampling, seeded) are the other half. Then the 2, 3 or 4 oldest turns after the system text
go, and a last question is put to these caches:

full     nothing is dropped: the cache as it grew during the talk
full'    the same text read in an empty cache: what rounding does
re-read  the kept turns, read in an empty cache
move     the cache as it grew, the turns cut out, the rest moved down: Context.feed(move=True)
hole     cut out but not moved, positions run on: what M-RoPE models get

All read one answer: what re-read says greedily, at most 48 tokens. At each of its positions
KL(P || Q) = sum P ln(P / Q) over the vocabulary, in nats; se is the standard error over the means
of conversations. top-1: how often P and Q put the same token first. same: tokens until they do not
(median), beside re-read the place where greedy answers part; never: conversations where they do
not part; count: partings where re-read's two best logits are over 0.01 apart. Slide n: a window of
4 turns slid n times by one turn, each time in the cache that the slide before left; slide 0 is
reading twice and must be 0. These and full' are of the first 6 conversations. All goes through
lcp's own prompts and Context; only for the hole this script reaches in, for the kind of memory.
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
from lcp.engine.cores import physical_cores
from lcp.engine.model import Model
from lcp.engine.native import StopByte, library
from lcp.engine.prompt import PromptWriter
from lcp.engine.sampler import Sampler
from lcp.engine.template import Template
from lcp.settings import Sampling

ANSWER, SIZE, MARGIN = 48, 1536, 1e-2
DEEP, WINDOW, SLIDES = 6, 4, 5  # drift: conversations, turns that fit, slides
PAIRS = {"full": ("full'", "re-read", "move", "hole"), "re-read": ("move", "hole")}
SYSTEM = {"role": "system", "content": "You are a helpful assistant. Answer in two sentences."}
ASK = "What does that mean for me?/What would you do about that?/How do I deal with it?/Is it bad?"
AGAIN = "Can you give me an example?/Why is that so?/What comes first?/Say that in simpler words."
LAST = "What should I do first, and why?/Please sum up our plan./What have we forgotten?"
TOPICS = """a garden in the north: The soil is heavy clay. My plot is forty square metres. The
last frost comes in May. My neighbour keeps eleven hens. I want to grow leeks and red cabbage.
* a trip to Lisbon: We are two adults and a girl of six. We fly on the third of April. Our hotel is
in Alfama, up many stairs. My wife wants to see the tiles. We have 900 euros for four days.
* baking bread: My sourdough is nine days old. The kitchen is at seventeen degrees. My oven goes up
to 230 degrees. The last loaf was flat and sour. I use rye flour.
* learning the cello: I am fifty-two years old. My teacher is Mrs Novak. I practise twenty minutes
before breakfast. My left hand hurts after scales. In June I play at my sister's wedding.
* an old bicycle: It is a Peugeot from 1983. The rear wheel has lost two spokes. The chain jumps in
the third gear. My way to work is fourteen kilometres. I have no tools but a hammer.
* a school project on volcanoes: My class is in the sixth year. We chose Mount Etna in Sicily. The
poster is one metre wide. Tom wants to build a model with vinegar. We show it on Thursday.
* a shy cat: Her name is Pepper and she is four. She came from a shelter in Leeds. She hides under
the bath. She eats only tuna. At night she sits on the window sill and cries.
* writing a crime novel: The detective is a retired baker named Ada. A clock was stolen from the
town hall. The thief is the mayor's brother. The story plays in winter. I have 80 pages.
* running a half marathon: I have run for two years. My best over ten kilometres is 58 minutes. The
race is in Bristol in September. My right knee hurts downhill. I can train four times a week.
* a small bakery: We sell two hundred rolls a day. The rent goes up to 1,400 pounds in March. Most
people come before eight. A supermarket opens across the street. My son wants to sell coffee.
* solar panels on a roof: The roof looks south-west. We use 3,200 kilowatt hours a year. A tall oak
shades it in the evening. The firm asks 7,800 euros. Our electric car charges at night.
* a chess club: We are fourteen people and meet on Tuesdays. The youngest is Mira, who is nine. Our
room at the library has five tables. We own three clocks. In autumn we play against Oxford.
* a talk on tea: It lasts fifteen minutes. The listeners are gardeners. I begin with China and the
emperor Shennong. Robert Fortune smuggled plants in 1848. I have ten pictures.
* a damp cellar: The house was built in 1911. The walls are bare brick. After rain there is water in
the north corner. The washing machine stands there. A builder asks 12,000 pounds.
* moving to Norway: My new job is in Bergen. I start on the first of August. My furniture is in a
van. I speak no Norwegian yet. My dog is a beagle and needs papers.
* a birthday for a grandmother: She turns ninety on a Sunday. Thirty guests come. She loves Schubert
and lemon cake. She cannot climb stairs. Uncle Paul wants to give a speech.
* bees on a balcony: I live on the fourth floor in Berlin. The balcony looks east. My first hive is
made of larch. A neighbour is afraid of stings. Lime trees in the street bloom in June.
* photographs of stars: My camera is twelve years old. I have a lens of 24 millimetres. The nearest
dark place is an hour away. My tripod shakes. In August I want to see the Perseids.
* a sailing boat: She is called Heron and is seven metres long. The hull is wood from 1968. There is
a crack under the mast. My berth in Whitby ends in October. I have never sailed at night.
* saving money: I earn 2,100 pounds a month. The rent takes 850 of it. I owe my brother 600. My
phone contract ends in May. I would like to buy a piano for 3,000 pounds next year."""

Turns = list[list[dict[str, Any]]]
Rows = Iterator[tuple[str, dict[str, Any]]]  # a row's name, and two caches along one answer


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
        cores, stop = physical_cores(), StopByte()
        self._cache = partial(Context, m, SIZE, stop, threads=cores, offloaded=False)

    def measure(self, lines: list[str], seed: int) -> Rows:
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

    def _prompt(self, turns: Turns, question: str) -> list[int]:
        asked = {"role": "user", "content": question}
        return self._writer.write([SYSTEM, *chain(*turns), asked]).tokens

    def _talk(self, lines: list[str], seed: int) -> tuple[Turns, State | None]:
        """The turns of a conversation, and the cache as it grew. An answer ends at the first full
        stop behind 50 tokens."""
        turns: Turns = []
        with closing(self._cache()) as cache:
            for line in lines:
                list(cache.feed(prompt := self._prompt(turns, line)))
                with closing(Sampler(self.model, Sampling(), seed, prompt)) as sampler:
                    while not self.model.is_end(token := sampler.sample(cache)):
                        cache.append(token)
                        said = cache.tokens[len(prompt) :]
                        if len(said) > 50 and self.model.piece(token).endswith(b"."):
                            break
                own = {"tokens": said, "fingerprint": self.model.fingerprint}
                answer = {"role": "assistant", "content": self.model.text(said), **own}
                turns.append([{"role": "user", "content": line}, answer])
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
            if held and not cache.restore(held):
                raise SystemExit("llama.cpp does not take back what it saved.")
            *_, progress = cache.feed(prompt, move=bool(slide))
            if held and bool(progress.moved) != bool(slide):
                raise SystemExit("The window did not slide as it was told.")
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


def _compare(answers: dict[str, Answer], title: str = "") -> Rows:
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
    for seed, topic in enumerate(" ".join(TOPICS.split()).split(" * ")):
        draw = random.Random(seed)
        subject, told = topic.rstrip(".").split(": ")
        first, *facts = told.split(". ")
        ask, again = (draw.sample(lines.split("/"), 4) for lines in (ASK, AGAIN))
        middle = ((f"{fact}. {ask[i]}", again[i]) for i, fact in enumerate(facts))
        begin = f"I need some advice about {subject}. {first}. Where should I begin?"
        yield [begin, *chain(*middle), LAST.split("/")[seed // 3 % 3]]


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
