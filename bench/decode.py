"""lcp against llama-bench: speed of writing, speed of reading, time from Enter to the first text.

    python -m bench.decode [MODEL.gguf] [-t N] [--pairs N] [--only PART ...] [--json FILE]

write   tokens/s of an interactive `lcp chat` in a pty, screen included, over llama-bench's tg at
        the depth of that prompt. llama-bench times N single-token decodes and samples nothing. Ours
        twice: "seen" is (N - 1) / (stats line - first text) at the pty, as the first token comes
        out of reading the prompt and N - 1 decodes follow; "said" is what the stats line claims.
        Both with the context llama-bench makes, just large enough; a third row shows the default
        context: without flash attention a larger cache alone costs a few percent (see README.md).
read    new tokens / read_s of a one-shot `lcp chat --json`, over llama-bench's pp of as many tokens
        in an empty cache.
enter   seconds from Enter to the first text for about 256 pasted tokens in a running chat, seen at
        the pty, over llama-bench's seconds to decode as many tokens at the same depth. Without
        reading ahead: nothing may have been read before Enter.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial

from bench.measure import BenchError, Row, abba
from bench.sides import NO_AHEAD, Chat, Model, arguments, ask, llama_bench, prose, run

STORY = "Write a very long story about a lighthouse keeper."
TOKENS = 128
PARTS = ("write", "read", "enter")


def write(model: Model, pairs: int) -> list[Row]:
    """Tokens/s of the answer: seen, said, seen with the default context."""
    stats = ask(model, STORY, flags=("-n", str(TOKENS)))[0]["stats"]
    depth = stats["prompt_tokens"]
    if stats["reply_tokens"] != TOKENS:
        raise BenchError(f"The answer has not {TOKENS} tokens: this model needs another prompt.")
    same = -(-(depth + TOKENS) // 256) * 256  # llama.cpp rounds a context up to this

    def ours(context: int | str) -> tuple[float, float]:
        with Chat(model, "-n", str(TOKENS), "-c", str(context)) as chat:
            told = chat.say(STORY)
        return (TOKENS - 1) / (told.ended - told.first_text), told.tokens_per_second

    def theirs() -> float:
        return llama_bench(model, generate=TOKENS, depth=depth)

    fitting, default = (abba(partial(ours, c), theirs, pairs) for c in (same, "auto"))
    name = f"write {TOKENS} at depth {depth}"
    return [
        Row(f"{name}, seen", "tokens/s", [(a[0], b) for a, b in fitting], ">= 0.97"),
        Row(f"{name}, said", "tokens/s", [(a[1], b) for a, b in fitting], ">= 0.97"),
        Row(f"{name}, default -c", "tokens/s", [(a[0], b) for a, b in default]),
    ]


def read(model: Model, pairs: int, words: int) -> Row:
    """Tokens/s of a prompt of about that many tokens."""
    new = ask(model, prose(words), flags=("-n", "1"))[0]["stats"]["read"]
    flags = ("-n", "1", "-c", str(-(-(new + 1) // 256) * 256))  # llama-bench's size, see write

    def ours() -> float:
        stats = ask(model, prose(words), flags=flags)[0]["stats"]
        return float(stats["read"] / stats["read_s"])

    found = abba(ours, lambda: llama_bench(model, prompt=new), pairs)
    return Row(f"read {new}", "tokens/s", found, ">= 0.97")


def enter(model: Model, pairs: int, words: int = 256) -> Row:
    """Seconds from Enter to the first text of the second turn of a chat."""
    flags = ("-n", "16", *NO_AHEAD)
    stats = ask(model, "Hello!", prose(words), flags=flags)[1]["stats"]
    new, depth = stats["read"], stats["reused"]

    def ours() -> float:
        with Chat(model, *flags) as chat:
            chat.say("Hello!")
            told = chat.say(prose(words))
        return told.first_text - told.entered

    found = abba(ours, lambda: new / llama_bench(model, prompt=new, depth=depth), pairs)
    return Row(f"enter, {new} new at depth {depth}", "s", found, "<= 1.1")


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    rows, pairs = [], options.pairs
    if "write" in options.only:
        rows += write(model, pairs)
    if "read" in options.only:
        rows += [read(model, pairs, words) for words in (512, 1024)]
    if "enter" in options.only:
        rows.append(enter(model, pairs))
    return rows


def main() -> int:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
