"""How good answers are when the window has slid: by a move, by a hole, by reading again.

    python -m bench.quality MODEL.gguf [-t N] [--conversations N] [--drift N] [--json FILE]

20 conversations of 9 turns: a person tells the facts below and asks; the model's own answers (lcp's
default sampling, seeded) are the other half. Then the 2, 3 or 4 oldest turns after the system text
go, and a last question is asked of five caches:

full      nothing is dropped: the cache as it grew during the talk
re-read   the kept turns, read in an empty cache
move      the cache as it grew, the turns cut out, the rest moved down: Context.feed(move=True)
hole      cut out but not moved, positions run on: what M-RoPE models get
by-64     re-read in batches of 64, not 512: the rounding of any other split, the floor

All read the same answer: what re-read says greedily, 48 tokens or fewer where it ends. At each of
its positions KL(P || Q) = sum P ln(P / Q) over the vocabulary, in nats; se: the standard error over
the conversations' means. top-1: how often P and Q put the same token first. same: tokens until they
do not (median), which beside re-read is where greedy answers part; never: conversations where they
never part; count: partings that count, as re-read's two best logits are over 0.01 apart there.
Drift: a window of 4 turns slides by one turn five times in a row, each time in the cache that the
slide before left. All goes through lcp's own prompts and Context; this script reaches in for the
kind of memory (the hole) and the size of a batch.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lcp.engine.context import Context, State
from lcp.engine.cores import physical_cores
from lcp.engine.model import Model
from lcp.engine.native import StopByte, library
from lcp.engine.prompt import PromptWriter
from lcp.engine.sampler import Sampler
from lcp.engine.template import Template
from lcp.settings import Sampling

ANSWER, SIZE, BATCH, MARGIN = 48, 1536, 512, 1e-2
WINDOW, SLIDES = 4, 5  # drift: turns that fit, slides in a row
PAIRS = "full|re-read full|move full|hole re-read|move re-read|hole re-read|by-64".split()
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

Plain = dict[str, Any]
Turns = list[list[Plain]]


class Answer(NamedTuple):
    """What one cache makes of a prompt, and of the answer it is given to read."""

    tokens: list[int]
    logp: npt.NDArray[np.float64]  # (positions, vocabulary): ln p before each token
    after: State | None  # the cache when the prompt was read


class Bench:
    """One model, and a new cache for everything that is asked."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = model = Model.load(path, n_gpu_layers=0)
        self._writer = PromptWriter(Template(model.chat_template, now=datetime(2026, 1, 1)), model)
        stop = StopByte()
        self._context = partial(Context, model, SIZE, stop, threads=threads, offloaded=False)

    def prompt(self, turns: Turns, question: str) -> list[int]:
        asked = {"role": "user", "content": question}
        return self._writer.write([SYSTEM, *chain(*turns), asked]).tokens

    def talk(self, lines: Sequence[str], seed: int) -> tuple[Turns, State | None]:
        """The turns of a conversation, and the cache as it grew. An answer ends at the first full
        stop behind 40 tokens."""
        turns: Turns = []
        with closing(self._context()) as context:
            for line in lines:
                list(context.feed(prompt := self.prompt(turns, line)))
                with closing(Sampler(self.model, Sampling(), seed, prompt)) as sampler:
                    while not self.model.is_end(token := sampler.sample(context)):
                        context.append(token)
                        said = len(context.tokens) - len(prompt)
                        if said > 40 and self.model.piece(token).endswith(b"."):
                            break
                tokens = context.tokens[len(prompt) :]
                answer = {"role": "assistant", "content": self.model.text(tokens)}
                own = {"tokens": tokens, "fingerprint": self.model.fingerprint}
                turns.append([{"role": "user", "content": line}, answer | own])
            return turns, context.save()

    def answer(
        self,
        prompt: list[int],
        like: Answer | None = None,
        held: State | None = None,
        slide: Any = None,
        batch: int = BATCH,
    ) -> Answer:
        """Read `prompt` in an empty cache, or in one that holds `held` and may "move" or leave a
        "hole"; then the answer `like`, or the greedy one."""
        with closing(self._context()) as context:
            context._n_batch = batch
            context._cells.kind = replace(context.kind, slide=slide or "reread")
            assert not held or context.restore(held), "llama.cpp takes back what it saved"
            *_, progress = context.feed(prompt, move=bool(slide))
            assert bool(progress.moved) == bool(slide), "the window slides when it is told to"
            after, tokens, rows = context.save(), list[int](), []
            for i in range(len(like.tokens) if like else ANSWER):
                logits = library().llama_get_logits_ith(context.handle, -1)
                row = np.ctypeslib.as_array(logits, (self.model.n_vocab,)).astype(np.float64)
                rows.append(row - np.logaddexp.reduce(row))
                tokens.append(like.tokens[i] if like else int(row.argmax()))
                if self.model.is_end(tokens[-1]):
                    break
                context.append(tokens[-1])
            return Answer(tokens, np.array(rows), after)

    def slid(self, prompt: list[int], held: dict[str, State | None]) -> dict[str, Answer]:
        """The answers of an empty cache and of those that slide, to the same prompt."""
        fresh = self.answer(prompt)
        return {"re-read": fresh} | {how: self.answer(prompt, fresh, held[how], how) for how in held}

    def once(self, lines: list[str], seed: int) -> tuple[Turns, Plain]:
        """A conversation, and the pairs after its window slid once."""
        turns, grown = self.talk(lines[:-1], seed)
        whole, kept = (self.prompt(turns[out:], lines[-1]) for out in (0, 2 + seed % 3))
        answers = self.slid(kept, {"move": grown, "hole": grown})
        fresh = answers["re-read"]
        answers["full"] = self.answer(whole, fresh, grown)
        answers["by-64"] = self.answer(kept, fresh, batch=64)
        answers["again"] = self.answer(kept, fresh)
        pairs = {pair: _compare(pair, answers) for pair in (*PAIRS, "re-read|again")}
        assert not any(pairs.pop("re-read|again")["kl"]), "reading twice gives the same"
        return turns, {"tokens": len(whole), "kept": len(kept)} | pairs

    def drift(self, turns: Turns, lines: list[str]) -> Iterator[Plain]:
        """The pairs after each of several slides in a row."""
        first = self.answer(self.prompt(turns[:WINDOW], lines[WINDOW])).after
        held = {"move": first, "hole": first}
        for begin in range(1, SLIDES + 1):
            end = begin + WINDOW
            answers = self.slid(self.prompt(turns[begin:end], lines[end]), held)
            yield {f"re-read|{how}": _compare(f"re-read|{how}", answers) for how in held}
            held = {how: answers[how].after for how in held}


def _compare(pair: str, answers: dict[str, Answer]) -> Plain:
    """Two caches along one answer: KL and top-1 per position, where they part first."""
    p, q = (answers[name].logp for name in pair.split("|"))
    top1 = p.argmax(axis=1) == q.argmax(axis=1)
    same = len(top1) if top1.all() else int(top1.argmin())
    second, best = np.sort(answers["re-read"].logp[min(same, len(top1) - 1)])[-2:]
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    counts = bool(same < len(top1) and best - second > MARGIN)
    return {"kl": kl.tolist(), "top1": top1.tolist(), "same": same, "counts": counts}


def conversations() -> Iterator[list[str]]:
    """What the person says, turn by turn; the last line comes after the slide."""
    for seed, topic in enumerate(" ".join(TOPICS.split()).split(" * ")):
        draw = random.Random(seed)
        subject, told = topic.rstrip(".").split(": ")
        first, *facts = told.split(". ")
        asked, again = (draw.sample(lines.split("/"), 4) for lines in (ASK, AGAIN))
        pairs = zip(facts, asked, again, strict=True)
        yield [
            f"I need some advice about {subject}. {first}. Where should I begin?",
            *chain(*((f"{fact}. {ask}", then) for fact, ask, then in pairs)),
            LAST.split("/")[seed // 3 % 3],
        ]


def _row(name: str, found: list[Plain]) -> str:
    kl, top1 = (np.concatenate([one[key] for one in found]) for key in ("kl", "top1"))
    se = np.std([np.mean(one["kl"]) for one in found], ddof=1) / len(found) ** 0.5
    never = sum(all(one["top1"]) for one in found)
    same, counts = np.median([one["same"] for one in found]), sum(one["counts"] for one in found)
    return (
        f"| {name} | {kl.mean():.4f} ± {se:.4f} | {np.median(kl):.4f} | {np.quantile(kl, 0.95):.4f}"
        f" | {kl.max():.3f} | {top1.mean():.3f} | {same:.0f} | {never} | {counts} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("-t", "--threads", type=int, default=physical_cores())
    parser.add_argument("--conversations", type=int, default=20, help="at most 20 (default 20)")
    parser.add_argument("--drift", type=int, default=6, help="of these, for the drift (default 6)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    asked = parser.parse_args()
    bench, slides, drifts = Bench(asked.model, asked.threads), list[Plain](), list[list[Plain]]()
    for seed, lines in enumerate([*conversations()][: asked.conversations]):
        turns, pairs = bench.once(lines, seed)
        slides.append(pairs)
        if seed < asked.drift:
            drifts.append([*bench.drift(turns, lines)])
    head = "P || Q | KL mean ± se | median | p95 | max | top-1 | same | never | count".split(" | ")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for pair in PAIRS:
        print(_row(pair.replace("|", " || "), [found[pair] for found in slides]))
    for n in range(SLIDES if drifts else 0):
        for pair in drifts[0][n]:
            print(_row(f"slide {n + 1}: {pair.replace('|', ' || ')}", [d[n][pair] for d in drifts]))
    if asked.json:
        found = {"model": asked.model.name, "slides": slides, "drift": drifts}
        asked.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
