"""`lcp look tokens`: the pieces of a text that a model reads."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.options import switch
from lcp.errors import NotSupported
from lcp.formatting import count

if TYPE_CHECKING:
    from lcp.cli.look.common import OpenModel
    from lcp.look.tokens import Merge, Rank
    from lcp.terminal.printout import Printout

MERGED = 12  # tokens whose merges are shown


@dataclass(frozen=True)
class TokensArguments:
    """What was typed after `lcp look tokens`, except the settings."""

    words: list[str] | None = common.texts()
    model: str | None = common.model_name()
    merges: bool = switch("--merges", "Also show the steps that build each token.")
    chat: bool = common.as_chat()
    as_json: bool = common.as_json()
    svg: Path | None = common.svg()


@dataclass(frozen=True)
class TokensShown:
    """The tokens of a text, and how they are built."""

    tokens: list[int]
    pieces: list[str]
    raw: list[bytes]
    special: frozenset[int]
    vocabulary: int
    merges: dict[int, list["Merge"]]  # of different tokens, in the order of the text
    merged: int  # different tokens of the text that were built by merges
    seconds: float

    @property
    def text(self) -> str:
        """What the tokens stand for, without those that are structure."""
        both = zip(self.tokens, self.raw, strict=True)
        return b"".join(r for t, r in both if t not in self.special).decode("utf-8", "replace")


def run(asked: TokensArguments, flags: dict[str, Any]) -> None:
    """Show the tokens of a text, with their numbers. @FILE reads the text of a file."""
    name, words = common.words_of(asked.words, asked.model)
    text = common.text_of(words)

    def job(opened: "OpenModel") -> TokensShown:
        model, begun = opened.model, time.monotonic()
        tokens = opened.tokens(text, chat=asked.chat, least=1, read=False)
        special = frozenset(t for t in tokens if model.is_control(t))
        built = [t for t in dict.fromkeys(tokens) if len(model.spelling(t)) > 1
                 and t not in special and not _is_byte(opened, t)]  # fmt: skip
        merges = _merges(opened, built[:MERGED]) if asked.merges else {}
        return TokensShown(
            tokens, [opened.piece(t) for t in tokens],
            [model.piece(t, special=True) for t in tokens], special, model.n_vocab, merges,
            len(built), time.monotonic() - begun,
        )  # fmt: skip

    shown = common.run(name, flags, job)
    common.publish(lambda page: _show(page, shown), _json(shown), asked.as_json, asked.svg)


tokens = options.command(TokensArguments, run, common.SETTINGS)


def _is_byte(opened: "OpenModel", token: int) -> bool:
    """Whether a token is a single byte, and not built of others."""
    return len(opened.model.piece(token)) <= 1


def _merges(opened: "OpenModel", tokens: list[int]) -> dict[int, list["Merge"]]:
    """The steps that build these tokens. NotSupported if the vocabulary works in another way."""
    from lcp.look import tokens as look

    model = opened.model
    rank: Rank
    if model.merging == "merges":
        from lcp.modelfile.weights import merges

        rank = look.by_list(merges(model.path))
    elif model.merging == "scores":
        every = range(model.n_vocab)
        rank = look.by_score({model.spelling(t): model.score(t) for t in every})
    else:
        raise NotSupported(
            f"The tokens of {opened.name} are not built by merges: its vocabulary is neither BPE "
            "nor SentencePiece. Leave out --merges."
        )
    return {t: list(look.merge(model.spelling(t), rank)) for t in tokens}


def _plain(part: str, merging: dict[str, int]) -> str:
    """A part of a token as people write it."""
    if all(letter in merging for letter in part):
        return bytes(merging[letter] for letter in part).decode("utf-8", "backslashreplace")
    return part.replace("▁", " ")


def _steps(shown: TokensShown, token: int) -> list[tuple[int, list[str]]]:
    """The merges of a token: number, and the parts afterwards."""
    from lcp.look.tokens import letters_to_bytes

    letters = letters_to_bytes()
    return [
        (round(step.rank), [_plain(part, letters) for part in step.parts])
        for step in shown.merges[token]
    ]


def _json(shown: TokensShown) -> dict[str, Any]:
    rows = []
    for token, piece, raw in zip(shown.tokens, shown.pieces, shown.raw, strict=True):
        row = {"id": token, "text": piece, "bytes": raw.hex(), "special": token in shown.special}
        if token in shown.merges:
            row["merges"] = [
                {"rank": rank, "parts": parts} for rank, parts in _steps(shown, token)
            ]  # fmt: skip
        rows.append(row)
    return {"tokens": rows, "characters": len(shown.text), "bytes": len(shown.text.encode()),
            "vocabulary": shown.vocabulary, "seconds": round(shown.seconds, 3)}  # fmt: skip


def _show(page: "Printout", shown: TokensShown) -> None:
    from lcp.look.tokens import broken
    from lcp.terminal.token_charts import tokens as drawing
    from lcp.terminal.token_charts import visible

    ids, pieces = shown.tokens, shown.pieces
    page.flow(drawing(list(zip(ids, pieces, strict=True)), shown.special))
    page.blank()
    if shown.merges:
        rows = []
        for token in shown.merges:
            name = pieces[ids.index(token)]
            for i, (rank, parts) in enumerate(_steps(shown, token)):
                said = " ".join(visible(part) for part in parts)
                rows.append(["" if i else visible(name), f"{rank:,}", said])
        page.table(["token", "merge", "parts"], rows, cut=16)
        left = shown.merged - len(shown.merges)
        more = f" {left:,} other tokens are built the same way." if left else ""
        page.line(
            "Of all neighbours, the pair with the lowest number is merged first, until no "
            f"neighbours are a pair.{more}",
            style="dim",
        )
        page.blank()
    plain = [t for t in ids if t not in shown.special]
    text = shown.text
    rate = f", {len(text) / len(plain):.1f} characters a token" if plain else ""
    page.line(
        f"{count(len(ids), 'token')} of a vocabulary of {shown.vocabulary:,}; "
        f"{count(len(text), 'character')}, {count(len(text.encode()), 'byte')}{rate}. "
        "␣ is a blank, ⏎ the end of a line.",
        style="dim",
    )
    if shown.special:
        named = dict(zip(ids, pieces, strict=True))
        found = ", ".join(f"{named[t]} [{t}]" for t in sorted(shown.special))
        page.line(f"Structure, not text: {found}.", style="dim")
    if any(map(broken, shown.raw)):
        page.line(
            r"\xe2 is a byte: the token begins or ends in the middle of a character.", style="dim"
        )
