"""Text of strangers: what must never reach a terminal as it is."""

import re
import unicodedata
from itertools import pairwise

import pytest
from fakes import Said
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import ENTER, InProcess, Scene, in_both

from lcp.terminal.clean import Cleaner, clean

NASTY = {
    "colour": "\x1b[31mred\x1b[0m",
    "clear the screen": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\text\x1b]8;;\x1b\\",
    "device control": "\x1bPq\x1b\\",
    "C1 CSI": "\x9b31m",
    "C1 OSC": "\x9d0;owned\x9c",
    "back over it": "safe\b\b\b\bevil",
    "carriage return": "safe\revil",
    "bell": "\x07",
    "null": "a\x00b",
    "delete": "a\x7fb",
    "shift out": "\x0e\x0f",
    "form feed": "\x0b\x0c",
    "right to left": "\u202etxt.exe",
    "isolates": "\u2066a\u2069",
    "marks": "\u200ea\u200f\u061c",
    "zero width": "pass\u200bword\u2060\ufeff",
    "line separators": "a\u2028b\u2029c",
    "soft hyphen": "a\u00adb",
    "tags": "\U000e0041\U000e0042",
    "annotation": "\ufff9a\ufffab\ufffb",
    "lone surrogate": "a\ud83db",
}
# what of all this must not be written by whoever shows it; ESC [ is what editors and rich write
FORBIDDEN = {c for text in NASTY.values() for c in text if not c.isprintable()} - {"\x1b"}
SEQUENCES = ("\x1b]", "\x1bP", "\x1b[31mred", "\x1b[2J\x1b[H")
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
HEART = "\u2764\ufe0f"
KEPT = f"Tab\tund Grüße, 世界, {FAMILY} {HEART} e\u0301 नमस्ते\n"

texts = st.text(
    st.one_of(st.sampled_from([*sorted(FORBIDDEN), "\x1b", "\n", "a"]), st.characters())
)


def test_what_is_text_stays_as_it_is():
    assert clean(KEPT) == KEPT


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_nothing_that_acts_on_a_terminal_is_left(text):
    assert not FORBIDDEN & set(clean(text))
    assert "\x1b" not in clean(text)


def test_what_was_there_is_shown():
    assert clean("\x1b[2J\x07\x7f") == "␛[2J␇␡"
    assert clean("\u202eexe") == "<202E>exe"
    assert clean("\x9b \ud800 \U000e0041") == "� � �"


def test_a_joiner_stays_where_writing_needs_it():
    joined = ["می\u200cخواهم", "क्\u200dष", FAMILY, f"{HEART}\u200d\U0001f525"]
    assert [clean(text) for text in joined] == joined
    assert clean("pass\u200dword\u200c1") == "pass<200D>word<200C>1"
    assert clean("\u200cا\u200c\u200c\u200dب") == "<200C>ا\u200c<200C><200D>ب"


def test_every_line_end_is_a_line_feed():
    assert clean("a\r\nb\rc\nd") == "a\nb\nc\nd"


@settings(deadline=None)
@given(texts)
def test_whatever_is_cleaned_is_harmless(text):
    cleaned = clean(text)
    assert not FORBIDDEN & set(cleaned)
    assert {c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs")} <= {"\t", "\n"}
    assert clean(cleaned) == cleaned


@settings(deadline=None)
@given(texts | st.text("\u200c\u200dم👩a\r\n"), st.lists(st.integers(0, 50)))
def test_a_cut_anywhere_changes_nothing(text, cuts):
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    cleaner = Cleaner()
    chunks = [cleaner.feed(text[a:b]) for a, b in pairwise(edges)]
    assert "".join(chunks) == clean(text)


def harmless(chat):
    assert not FORBIDDEN - {"\r", "\b"} & set(chat.raw), "a control character was written"
    assert not [sequence for sequence in SEQUENCES if sequence in chat.raw]


EVERYTHING = "\n".join(NASTY.values())


@in_both(Said(EVERYTHING + "\nThat was all.", thinking=EVERYTHING), f"Kept: {FAMILY} {HEART}")
def test_an_answer_and_its_thinking_cannot_act_on_the_terminal(chat):
    chat.type("Hack me." + ENTER)
    chat.sees("That was all.")
    chat.type("And now?" + ENTER)
    chat.waits(lambda: f"{FAMILY} {HEART}" in chat.raw, "the family was torn apart")
    harmless(chat)
    assert "␛]52;c;cm0gLXJm␇" in chat.screen()
    chat.ends()
    answers = [event["text"] for event in chat.events() if event["type"] == "answer"]
    assert answers[0].startswith("\x1b[31mred")  # the log keeps what was said


@in_both("Fine.")
def test_what_is_pasted_cannot_act_on_the_terminal(chat):
    pasted = "".join(c for c in EVERYTHING if c not in "\ud83d\x1b")
    chat.type(f"\x1b[200~{pasted}\x1b[201~{ENTER}")
    chat.sees("Fine.")
    assert not {"\x9b", "\x9d", "\x07"} & set(chat.raw)


@in_both()
def test_a_system_text_cannot_act_on_the_terminal(chat):
    pasted = re.sub("[\ud83d\x1b\r\n]", "", EVERYTHING)
    chat.type(f"/system \x1b[200~Seen. {pasted}\x1b[201~{ENTER}")
    chat.sees("System text: Seen.")
    chat.type("/exit" + ENTER)
    chat.leaves()
    assert "\u202e" not in chat.raw.partition("System text: ")[2]


def test_a_pipe_gets_the_text_untouched(tmp_path):
    chat = InProcess(Scene([Said(EVERYTHING + "\nThat was all.")]), tmp_path, piped=True)

    def body(chat):
        chat.type("Hack me." + ENTER)
        chat.sees("That was all.")

    chat.live(body)
    assert chat.out.written == EVERYTHING + "\nThat was all.\n"
