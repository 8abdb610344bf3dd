"""Several tokens in one batch against one after another: keys of a schema, copies, and a story.

    python -m bench.speculate [MODEL.gguf] [--as F16] [-t N] [--pairs N] [--only PART ...]

keys    tokens a second of an object of ten fixed keys, over the same with each token sampled: once
        with ten texts, once with a number, a date and two enums among them.
copy    tokens a second of an answer that repeats the text of the question, over the same with
        `speculate off`.
story   the same for an answer that copies nothing: drafting must not cost more than 2 %.
batch   what a batch of 2, 4, 8 and 16 tokens costs, in batches of one (median of the pairs).

All in one process, with one model whose cache holds the question. Times are CPU times: other
programs disturb them less. `--as` first makes a copy of the model in another format.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from time import process_time

from bench.measure import BenchError, Row, abba
from bench.sides import Model, arguments, prose, run
from lcp.engine.drafting import SIZES
from lcp.engine.engine import LlamaEngine
from lcp.engine.llama_library import library
from lcp.engine.llguidance_matcher import LlguidanceMatcher
from lcp.engine_interface import Constraint, PromptMessage, Request, Stats
from lcp.settings import Sampling, Settings

PARTS = ("keys", "copy", "story", "batch")
KEYS = (
    "name", "age", "city", "occupation", "email", "phone_number", "favorite_color",
    "date_of_birth", "nationality", "marital_status",
)  # fmt: skip
TEXT = (
    "The lighthouse keeper climbed the stairs every evening. He carried a small lamp and a book of "
    "old stories. The sea was calm that night, and the boats came home one after another. When the "
    "last boat was safe, he sat down by the window and wrote a letter to his sister in the city."
)


def schema(typed: bool = False) -> Constraint:
    """An object of ten keys, each with a short text; or `typed`, as forms have them: with a number,
    a date, and texts that are one of a few."""
    properties: dict[str, object] = {k: {"type": "string", "maxLength": 20} for k in KEYS}
    if typed:
        properties |= {
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "favorite_color": {"enum": ["red", "green", "blue", "yellow"]},
            "date_of_birth": {"type": "string", "format": "date"},
            "marital_status": {"enum": ["single", "married", "divorced", "widowed"]},
        }
    rules = {"type": "object", "properties": properties, "required": list(KEYS)}
    return Constraint("schema", json.dumps(rules), "The schema")


def ask(
    engine: LlamaEngine,
    question: str,
    tokens: int,
    speculate: bool,
    constraint: Constraint | None = None,
) -> tuple[float, Stats]:
    """Tokens a CPU second of a greedy answer, and its numbers."""
    request = Request(
        [PromptMessage("user", question)],
        Sampling(temp=0),
        tokens,
        constraint=constraint,
        speculate=speculate,
    )
    begun = process_time()
    reply = engine.reply(request)
    for _ in reply:
        pass
    if reply.stats.reply_tokens < 16:
        raise BenchError(f"The answer has few tokens: {reply.text!r}. Use another model.")
    return reply.stats.reply_tokens / (process_time() - begun), reply.stats


@contextmanager
def every_token_sampled() -> Iterator[None]:
    """Meanwhile nothing is known of the tokens that must follow."""
    forced = LlguidanceMatcher.forced

    def unknown(_: LlguidanceMatcher) -> list[int]:
        return []

    setattr(LlguidanceMatcher, "forced", unknown)  # noqa: B010
    try:
        yield
    finally:
        setattr(LlguidanceMatcher, "forced", forced)  # noqa: B010


def keys(engine: LlamaEngine, pairs: int, typed: bool) -> Row:
    question = f"Invent a person. Answer with a JSON object with the keys {', '.join(KEYS)}."

    def ours() -> float:
        return ask(engine, question, 300, False, schema(typed))[0]

    def sampled() -> float:
        with every_token_sampled():
            return ours()

    ours()
    name = f"ten keys, {'types and enums' if typed else 'texts'}, over each token sampled"
    return Row(name, "tokens/CPU s", abba(ours, sampled, pairs), ">= 1.3")


def drafts(
    engine: LlamaEngine, name: str, question: str, tokens: int, pairs: int, target: str
) -> Row:
    def speed(speculate: bool) -> float:
        return ask(engine, question, tokens, speculate)[0]

    _, stats = ask(engine, question, tokens, True)
    found = abba(partial(speed, True), partial(speed, False), pairs)
    kept = f"{stats.accepted} of {stats.drafted} drafted, {stats.reply_tokens} in all"
    return Row(f"{name} ({kept}), over off", "tokens/CPU s", found, target)


def batches(engine: LlamaEngine, pairs: int) -> list[Row]:
    context, model = engine._loaded.context, engine.model
    tokens = model.tokenize(prose(400), special=False)

    def seconds(size: int) -> float:
        begun = process_time()
        context.append(tokens[256], tokens[257 : 256 + size], each=True)
        library().llama_synchronize(context.handle)
        spent = process_time() - begun
        context.take_back(size)
        return spent

    for _ in context.feed(tokens[:256]):
        pass
    sizes = [size for size in SIZES if size > 1]
    return [
        Row(f"batch of {n}, over 1", "s", abba(partial(seconds, n), partial(seconds, 1), 4 * pairs))
        for n in sizes
    ]


def copy_as(path: Path, kind: str, folder: str) -> Path:
    """The model in another format of llama.cpp, as F16 or Q4_K_M."""
    c = library()
    params = c.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = getattr(c, f"LLAMA_FTYPE_MOSTLY_{kind}"), True
    copy = Path(folder) / f"{path.stem}-{kind}.gguf"
    if c.llama_model_quantize(str(path).encode(), str(copy).encode(), ctypes.byref(params)):
        raise BenchError(f"llama.cpp cannot make a copy of {path.name} as {kind}.")
    return copy


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    rows, pairs, only = [], options.pairs, options.only
    with tempfile.TemporaryDirectory() as folder:
        path = copy_as(model.path, options.format, folder) if options.format else model.path
        known["model"] = path.name
        settings = Settings(ctx_size=1024, threads=model.threads, flash_attn=model.flash_attn)
        with LlamaEngine(path, settings, now=datetime(2026, 11, 29)) as engine:
            engine.load(schema()).result()
            if "batch" in only:
                rows += batches(engine, pairs)
            if "keys" in only:
                rows += [keys(engine, pairs, typed) for typed in (False, True)]
            if "copy" in only:
                question = f"Repeat this text exactly: {TEXT}"
                rows.append(drafts(engine, "copy", question, 60, pairs, ">= 1.5"))
            if "story" in only:
                question = "Write a very long story about a lighthouse keeper."
                rows.append(drafts(engine, "story", question, 100, pairs, ">= 0.98"))
    return rows


def main() -> int:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--as", dest="format", metavar="TYPE", help="F16, Q8_0, Q4_K_M ...")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
