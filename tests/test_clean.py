"""Foreign text: control sequences must not reach a terminal."""

import re
import unicodedata
from itertools import pairwise

import pytest
from fakes import Said, ScriptedEngine, _done
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import CTRL_C, ENTER, NOW, OPEN_PASTE, TAB, Glass, InProcess, Paper, Scene, in_both

from lcp import commands
from lcp.chat.chat import Chat
from lcp.chat.services_interface import Services
from lcp.commands import command_table
from lcp.engine_interface import Alternative, TokenProb
from lcp.errors import LcpError
from lcp.session.conversation import Conversation
from lcp.settings import Layers
from lcp.terminal.clean import Cleaner, clean
from lcp.terminal.screen import Screen

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
    "letters without a shape": "a\u3164b\uffa0c\u115fd\u1160e\u17b4f",
    "other invisibles": "a\u034fb\u180ec\u2061d\U0001d173e\U0001bca0f\U000e0f00g",
    "joiners": "pass\u200dword\u200c1",
    "variants of letters": "p\ufe00a\ufe01y\ufe0f \U000e0101load",
    "a text in variants": "\U0001f600" + "".join(map(chr, range(0xE0100, 0xE0110))),
    "variants behind a variant": "\U0001f600\ufe0f\ufe01\ufe02",
}
# what of all this must not be written by whoever shows it; ESC [ is what editors and rich write
FORBIDDEN = {c for text in NASTY.values() for c in text if not c.isprintable()} - {
    "\x1b", "\u200c", "\u200d"
}  # fmt: skip
SEQUENCES = ("\x1b]", "\x1bP", "\x1b[31mred", "\x1b[2J\x1b[H")
# In the line editor, joiners stay, because it cannot know where one belongs.
MISPLACED = ("pass\u200d", "d\u200c1", "a\ufe01", "\U0001f600\U000e0100", "\ufe0f\ufe01")
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
HEART = "\u2764\ufe0f"
KEPT = f"Tab\tund Grüße, 世界, {FAMILY} {HEART} 1\ufe0f\u20e3 e\u0301 नमस्ते 葛\U000e0100飾\n"
UNSEEN = re.compile(  # Unicode's Default_Ignorable_Code_Point
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

VARIED = "\x1b\na\ufe0f\u200d👩❤葛\U000e0100"
CUTS = st.lists(st.integers(0, 50))
texts = st.text(st.one_of(st.sampled_from([*sorted(FORBIDDEN), *VARIED]), st.characters()))


def test_ordinary_text_is_unchanged():
    assert clean(KEPT) == KEPT


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_control_sequences_are_removed(text):
    assert not FORBIDDEN & set(clean(text))
    assert "\x1b" not in clean(text)
    assert text == NASTY["variants behind a variant"] or not UNSEEN.search(clean(text))
    assert clean(text) != text


def test_removed_characters_leave_a_visible_sign():
    assert clean("\x1b[2J\x07\x7f") == "␛[2J␇␡"
    assert clean("\u202eexe") == "<202E>exe"
    assert clean("\x9b \ud800 \U000e0041") == "� � �"


def test_joiners_stay_where_scripts_need_them():
    joined = ["می\u200cخواهم", "क्\u200dष", FAMILY, f"{HEART}\u200d\U0001f525"]
    assert [clean(text) for text in joined] == joined
    assert clean("pass\u200dword\u200c1") == "pass<200D>word<200C>1"
    assert clean("\U0001f600\ufe0f\ufe01\u200d") == "\U0001f600\ufe0f<FE01><200D>"
    assert clean("a\ufe0f\u200d葛\U000e0101\U000e0102") == "a<FE0F><200D>葛\U000e0101<E0102>"
    assert clean("\u200cا\u200c\u200c\u200dب") == "<200C>ا\u200c<200C><200D>ب"


def test_line_ends_become_line_feeds():
    assert clean("a\r\nb\rc\nd") == "a\nb\nc\nd"


@settings(deadline=None)
@given(texts)
def test_any_cleaned_text_is_harmless(text):
    cleaned = clean(text)
    assert not FORBIDDEN & set(cleaned)
    assert len(UNSEEN.findall(cleaned)) <= len(UNSEEN.sub("", cleaned))  # at most one after each
    assert {c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs")} <= {"\t", "\n"}
    assert clean(cleaned) == cleaned


@settings(deadline=None)
@given(texts | st.text("\u200c\u200d\ufe0f\U000e0100\u180bم👩葛\u1820a\x07\r\n"), CUTS)
def test_cleaning_in_pieces_gives_the_same_text(text, cuts):
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    cleaner = Cleaner()
    chunks = [cleaner.feed(text[a:b]) for a, b in pairwise(edges)]
    assert "".join(chunks) == clean(text)


def harmless(raw, *more):
    assert not FORBIDDEN - {"\r", "\b"} & set(raw), "a control character was written"
    assert not [sequence for sequence in (*SEQUENCES, *more) if sequence in raw]


EVERYTHING = "\n".join(NASTY.values())


@in_both(Said(EVERYTHING + "\nThat was all.", thinking=EVERYTHING), f"Kept: {FAMILY} {HEART}")
def test_an_answer_and_its_thinking_cannot_act_on_the_terminal(chat):
    chat.type("Hack me." + ENTER)
    chat.sees("That was all.")
    chat.type("And now?" + ENTER)
    chat.waits(lambda: f"{FAMILY} {HEART}" in chat.raw, "the family was torn apart")
    harmless(chat.raw, *MISPLACED)
    assert "␛]52;c;cm0gLXJm␇" in chat.screen()
    chat.ends()
    answers = [event["text"] for event in chat.events() if event["type"] == "answer"]
    assert answers[0].startswith("\x1b[31mred")  # the log keeps the text unchanged


@in_both("Fine.")
def test_pasted_text_cannot_act_on_the_terminal(chat):
    pasted = "".join(c for c in EVERYTHING if c not in "\ud83d\x1b")
    chat.type(f"\x1b[200~{pasted}\x1b[201~")
    chat.sees("[paste 1:")
    chat.type(OPEN_PASTE)
    chat.sees("<2066>a<2069>")
    chat.type(ENTER)
    chat.sees("Fine.")
    harmless(chat.raw)
    assert "<202E>txt.exe" in chat.screen()


@in_both()
def test_names_of_files_cannot_act_on_the_terminal(chat):
    names = [
        "\x1b]0;owned\x07",
        "\u202etxt.exe",
        "pass\u200bword",
        "\x9b31m",
        "\x1b[2J\x1b[H",
        "plain",
    ]
    for name in names:
        (chat.home / f"f{name}.txt").write_text("Hm.")
    chat.type("See @f" + TAB + TAB)
    chat.sees("fplain.txt")  # the menu
    chat.type(TAB * len(names) + CTRL_C)
    for name in names:  # each file that is read is announced
        chat.type(f"/read f{name}.txt".replace("\x1b", "\x16\x1b") + ENTER)
    chat.type(CTRL_C + CTRL_C)
    chat.sees("Ctrl-D or /exit leaves.")
    harmless(chat.raw)
    assert "<202E>txt.exe" in chat.screen()


@pytest.mark.slow
@in_both()
def test_a_system_text_cannot_act_on_the_terminal(chat):
    pasted = re.sub("[\ud83d\x1b\r\n]", "", EVERYTHING)
    chat.type(f"/system \x1b[200~Seen. {pasted}\x1b[201~{ENTER}")
    chat.sees("System text: Seen.")
    chat.type("/exit" + ENTER)
    chat.leaves()
    assert "\u202e" not in chat.raw.partition("System text: ")[2]


class Numbers(ScriptedEngine):
    """Its tokens have control sequences, too."""

    def prompt(self, messages):
        return list(enumerate(NASTY.values()))

    def probs(self, messages, answer, free):
        others = tuple(Alternative(n, text, 0.1) for n, text in enumerate(NASTY.values()))
        return _done(lambda _: [TokenProb(0, EVERYTHING, 0.5, others) for _ in answer.tokens])


@pytest.mark.slow
def test_the_output_of_commands_cannot_act_on_the_terminal(home, tmp_path, monkeypatch):
    """Names and texts of every kind in the output and the errors of all commands."""
    monkeypatch.setenv("PATH", "")  # no clipboard but the terminal's
    monkeypatch.chdir(tmp_path)
    line = EVERYTHING.replace("\n", " ")
    conversation = Conversation.begin(lambda: NOW, line)
    glass = Glass(400, 50)
    screen = Screen(Paper(glass), Paper(glass))
    services = Services(models=lambda: {line: line}, personas={line: {"system": line}})
    log = services.store.create(conversation.opening)
    engine = Numbers(*[Said(EVERYTHING, thinking=EVERYTHING)] * 400)
    chat = Chat(engine, conversation, log, screen, line, Layers(), services=services)
    chat.keep(conversation.rename(line))
    for command in command_table.TABLE:
        for argument in ("", "1", line):
            if command.name != "exit":
                chat.ask(line)
                try:
                    commands.run(chat, f"/{command.name} {argument}".strip())
                except LcpError as error:
                    screen.error(str(error))
    log.close()
    written = re.sub(r"\x1b\]52;c;[\w+/=]*\x07", "", glass.raw)  # /copy was asked for
    harmless(written, *MISPLACED)


def test_a_pipe_gets_the_text_unchanged(tmp_path):
    chat = InProcess(Scene([Said(EVERYTHING + "\nThat was all.")]), tmp_path, piped=True)

    def body(chat):
        chat.type("Hack me." + ENTER)
        chat.sees("That was all.")

    chat.live(body)
    assert chat.out.written == EVERYTHING + "\nThat was all.\n"
