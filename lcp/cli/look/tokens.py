"""`lcp look tokens`: the pieces of a text that a model reads."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import switch
from lcp.errors import NotSupported
from lcp.formatting import count

if TYPE_CHECKING:
    from lcp.look.tokens import Merge, Rank
    from lcp.terminal.printout import Printout

MERGED = 12  # tokens whose merges are shown


@dataclass(frozen=True)
class TokensArguments(LookArguments):
    """What was typed after `lcp look tokens`, except the settings."""

    merges: bool = switch("--merges", "Also show the merges that build each token.")
    chat: bool = common.as_chat()


@dataclass(frozen=True)
class TokensShown:
    """The tokens of a text, and how they are built."""

    opened: OpenModel
    tokens: list[int]
    merges: dict[int, list["Merge"]]  # of different tokens, in the order of the text
    merged: int  # different tokens of the text that were built by merges

    @cached_property
    def special(self) -> frozenset[int]:
        """The tokens that are structure, and not text."""
        return frozenset(filter(self.opened.model.is_control, self.tokens))

    @cached_property
    def raw(self) -> list[bytes]:
        """What each token stands for."""
        return [self.opened.model.piece(t, special=True) for t in self.tokens]

    @cached_property
    def text(self) -> str:
        """What the tokens stand for, without those that are structure."""
        both = zip(self.tokens, self.raw, strict=True)
        return b"".join(r for t, r in both if t not in self.special).decode("utf-8", "replace")


def run(asked: TokensArguments, flags: dict[str, Any]) -> None:
    """Show the tokens of a text and their numbers. @FILE reads the text from a file."""
    name, text = common.text_of(asked)

    with common.models(name, flags) as (opened,):
        model = opened.model
        tokens = opened.tokens(text, chat=asked.chat, least=1, read=False)
        built = [
            t for t in dict.fromkeys(tokens)
            if len(model.spelling(t)) > 1 and not model.is_control(t) and len(model.piece(t)) > 1
        ]  # fmt: skip
        merges = opened.work(_merges, opened, built[:MERGED]) if asked.merges else {}
        shown = TokensShown(opened, tokens, merges, len(built))
        common.publish(asked, opened, _json(shown), lambda page: _show(page, shown))


tokens = options.command(TokensArguments, run, common.SETTINGS)


def _merges(opened: OpenModel, tokens: list[int]) -> dict[int, list["Merge"]]:
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
    for token, raw in zip(shown.tokens, shown.raw, strict=True):
        row = shown.opened.named(token, bytes=raw.hex(), special=token in shown.special)
        if token in shown.merges:
            steps = _steps(shown, token)
            row["merges"] = [{"rank": rank, "parts": parts} for rank, parts in steps]
        rows.append(row)
    return {"tokens": rows, "characters": len(shown.text), "bytes": len(shown.text.encode()),
            "vocabulary": shown.opened.model.n_vocab}  # fmt: skip


def _show(page: "Printout", shown: TokensShown) -> None:
    from lcp.look.tokens import broken
    from lcp.terminal.token_charts import tokens as drawing
    from lcp.terminal.token_charts import visible

    opened, ids, special = shown.opened, shown.tokens, shown.special
    page.flow(drawing([(t, opened.piece(t)) for t in ids], special))
    page.blank()
    if shown.merges:
        rows = []
        for token in shown.merges:
            for i, (rank, parts) in enumerate(_steps(shown, token)):
                said = " ".join(visible(part) for part in parts)
                rows.append(["" if i else opened.visible(token), f"{rank:,}", said])
        page.table(["token", "merge", "parts"], rows, cut=True)
        left = shown.merged - len(shown.merges)
        more = f" {left:,} other tokens are built the same way." if left else ""
        page.note(
            "The pair of neighbours with the lowest number merges first, until no two neighbours "
            f"are a known pair.{more}"
        )
        page.blank()
    plain = [t for t in ids if t not in special]
    text = shown.text
    rate = f", {len(text) / len(plain):.1f} characters per token" if plain else ""
    page.note(
        f"{count(len(ids), 'token')} of a vocabulary of {opened.model.n_vocab:,}; "
        f"{count(len(text), 'character')}, {count(len(text.encode()), 'byte')}{rate}. "
        "␣ is a space, ⏎ a line break."
    )
    if special:
        found = ", ".join(f"{opened.piece(t)} [{t}]" for t in sorted(special))
        page.note(f"Structure, not text: {found}.")
    if any(map(broken, shown.raw)):
        page.note(r"\xe2 is a byte: the token begins or ends in the middle of a character.")
