"""The slash commands for turns and branches. Nothing is overwritten: the head moves in the tree,
and the KV cache keeps the prefix that both paths share.

Turns are counted from 1, as /history shows them.
"""

import signal
from collections.abc import Sequence

from lcp import formatting
from lcp.chat import resume_notices, window_notices
from lcp.chat.chat import Chat
from lcp.commands.command import command, turns_of
from lcp.common_prefix import common_prefix
from lcp.errors import LcpError
from lcp.session.message import Message, Turn
from lcp.terminal import editor
from lcp.terminal.signals import handling

SHORTEST, SHOWN = 16, 40  # characters of a message in a table
WIDE = 60  # from this terminal width, /branches shows the turn where each branch begins
LEAST = 4  # characters of a difference that must be visible
NO_ANSWER = "(no answer)"
VARIANTS = 9  # most answers that one /retry generates


@command("undo", "[N]", "go back one turn, or N turns", "/undo 2")
def undo(chat: Chat, argument: str) -> None:
    """Goes back one turn, or N turns. The log keeps them; /branches takes you back there."""
    said = turns_of(chat)
    n = formatting.number(argument, len(said), "a number of turns to go back") if argument else 1
    chat.go(said[-n].user.parent)
    chat.screen.notice(f"Went back {formatting.count(n, 'turn')}. /branches lists the old branch.")


@command(
    "edit",
    "[N|answer]",
    "change the last question, or the Nth; or the last answer",
    "/edit answer",
    lambda chat, begun: ("answer",),
)
def edit(chat: Chat, argument: str) -> str | None:
    """Puts question N back into the input line; the old one stays in its branch. answer opens
    the last answer in $VISUAL or $EDITOR."""
    if argument == "answer":
        _edit_answer(chat)
        return None
    turn = _turn(chat, argument)
    chat.go(turn.user.parent)
    chat.screen.notice(
        "Change it and press Enter, or cancel with Ctrl-C. The old question stays in its branch."
    )
    return turn.user.written


@command(
    "retry", "[N] [xK]", "answer the last question, or the Nth, again; K times with xK", "/retry x3"
)
def retry(chat: Chat, argument: str) -> None:
    """Generates another answer to the last question, or to question N; with xK, K answers.
    Earlier answers stay as variants."""
    *which, times = argument.split() or [""]
    if not times.startswith("x"):
        which, times = [argument], "x1"
    turn = _turn(chat, " ".join(which))
    if turn.user.id != chat.conversation.turns()[-1].user.id:
        chat.screen.notice("Later turns stay on their branch.")
    for _ in range(formatting.number(times[1:] or times, VARIANTS, "a number of answers")):
        before, variants = chat.conversation.head, _answers(chat, turn) + 1
        if variants > 1:
            chat.screen.notice(f"Variant {variants} of this answer; /branches lists the others.")
        chat.go(turn.user.id)
        reply = chat.answer_or_go(before)  # on an error, return to the earlier answer
        same = _say_if_the_same(chat, turn)
        chat.say_status()
        if same or reply.ended == "interrupted":
            break


@command("continue", "", "continue an answer that was cut", "/continue")
def go_on(chat: Chat, _: str) -> None:
    """Continues an answer that Ctrl-C, --max-tokens or the end of the window cut off."""
    chat.go_on()
    chat.say_status()


@command("branch", "[N]", "go back to the end of turn N; later turns stay", "/branch 1")
def branch(chat: Chat, argument: str) -> None:
    """Goes back to the end of turn N, so that your next question starts a new branch there."""
    turn = _turn(chat, argument)
    if turn.answer is None:
        raise LcpError("This question has no answer yet. /retry answers it.")
    chat.go(turn.answer.id)
    chat.screen.notice("Your next question starts a new branch here; /branches lists the others.")


@command("branches", "[K]", "list the branches; switch to branch K", "/branches 2")
def branches(chat: Chat, argument: str) -> None:
    """Lists every branch by its last turn; * marks where you are. With K, switches to branch K."""
    conversation = chat.conversation
    leaves = conversation.branches()
    if not leaves:
        raise LcpError("There are no branches yet. Ask something first.")
    if argument:
        leaf = leaves[formatting.number(argument, len(leaves), "a branch") - 1]
        chat.go(leaf)
        last = _turn_of(chat, leaf)
        chat.screen.notice(f"On branch {argument}: {_short(last.user)} · {_short(last.answer)}")
        return
    head = conversation.head
    here = [] if head is None or head in leaves else [head]  # inside a branch, after an undo
    forks = [*map(conversation.fork, leaves), *here]
    numbers = [f"turn {len(conversation.turns(fork))}" for fork in forks]
    if len(forks) == 1 or chat.screen.width < WIDE:
        numbers = [""] * len(forks)
    marks = [("*" if leaf == head else " ", str(i)) for i, leaf in enumerate(leaves, 1)]
    marks += [("*", "") for _ in here]
    turns = [_turn_of(chat, fork) for fork in forks]
    wide = _width(chat, 1 + len(str(len(leaves))) + len(max(numbers, key=len) and "  turn 10"))
    questions = _apart([turn.user.written for turn in turns], wide)
    answers = _apart([turn.answer.content if turn.answer else NO_ANSWER for turn in turns], wide)
    rows = [
        (*mark, *([number] if number else []), question, answer)
        for mark, number, question, answer in zip(marks, numbers, questions, answers, strict=True)
    ]
    end = len(rows[0]) - 1
    chat.screen.table(rows, cut=(end - 1, end))
    if head not in leaves:
        inside = [str(i) for i, leaf in enumerate(leaves, 1) if conversation.leads_to(leaf)]
        turn = len(conversation.turns())
        where = f"after turn {turn} of branch {formatting.either(inside)}" if here else ""
        where = where or "before the first turn"
        chat.screen.notice(f"You are {where}; your next question starts a new branch.")


@command("pin", "N", "keep turn N in the window, or unpin it", "/pin 1")
def pin(chat: Chat, argument: str) -> None:
    """Keeps turn N in the context window when older turns leave it, and shows it again if it is
    hidden. The same command again unpins it."""
    id = _turn(chat, argument, "pin").user.id
    hidden = id in chat.conversation.forgotten
    on = hidden or id not in chat.conversation.pinned
    if on and chat.loading is None:
        chat.overflow.check_pin(id, chat.settings)
    if hidden:
        chat.forget(id, False)
    chat.keep(chat.conversation.pin(id, on))
    chat.screen.notice(f"Turn {argument} is {'pinned' if on else 'no longer pinned'}.")


@command("forget", "N", "hide turn N from the model, or show it again", "/forget 3")
def forget(chat: Chat, argument: str) -> None:
    """Removes turn N from what the model sees, and unpins it; the log keeps it. The same command
    again brings it back."""
    id = _turn(chat, argument, "forget").user.id
    on = id not in chat.conversation.forgotten
    if on and id in chat.conversation.pinned:
        chat.keep(chat.conversation.pin(id, False))
    chat.forget(id, on)
    chat.screen.notice(
        f"The model no longer sees turn {argument}; the log keeps it."
        if on
        else f"The model sees turn {argument} again."
    )


@command("history", "[N]", "list the turns of this branch; show turn N", "/history 2")
def history(chat: Chat, argument: str) -> None:
    """Lists the question and answer of each turn, with its marks (pinned, forgotten, out of the
    window). With N, prints turn N whole."""
    said = turns_of(chat)
    if argument:
        resume_notices.show(chat, _turn(chat, argument))
        return
    chat.screen.table(
        [
            (str(i), _marks(chat, turn), _short(turn.user), _short(turn.answer))
            for i, turn in enumerate(said, 1)
        ],
        cut=(2, 3),
    )


@command("context", "", "show what fills the context window", "/context")
def context(chat: Chat, _: str) -> None:
    """Shows how many tokens of the context window the system text, the turns and the answer use."""
    chat.ready()
    chat.screen.bar(chat.overflow.shares(chat.settings), chat.engine.size)
    if files := chat.overflow.files(chat.settings):
        chat.screen.notice(f"Files the model sees: {', '.join(files)}")
    if unseen := window_notices.unseen(chat.overflow, chat.settings):
        chat.screen.notice(unseen)


@command("clear", "", "start a new conversation", "/clear")
def clear(chat: Chat, _: str) -> None:
    """Starts a new conversation with the same model and settings. The log keeps the old one as
    a branch."""
    chat.keep(chat.conversation.clear())
    chat.screen.notice("Started a new conversation. The log keeps the old one; /branches lists it.")


def _turn(chat: Chat, argument: str, command: str = "") -> Turn:
    """The turn with this number, by default the last one; a `command` given here needs a number."""
    if command and not argument:
        raise LcpError(f"/{command} needs a turn: /{command} 1. /history numbers them.")
    said = turns_of(chat)
    return said[formatting.number(argument, len(said), "a turn") - 1] if argument else said[-1]


def _turn_of(chat: Chat, id: str) -> Turn:
    """The turn of a message; for a question, with its answer if it has exactly one."""
    message = chat.conversation.nodes[id]
    if message.role != "user" and message.parent is not None:
        return Turn(chat.conversation.nodes[message.parent], message)
    answers = chat.conversation.children(id)
    return Turn(message, answers[0] if len(answers) == 1 else None)


def _apart(texts: Sequence[str], width: int) -> list[str]:
    """Shorten the texts to one line each. A text that shares about `width` characters (the room in
    the table) with another starts a little before they differ."""
    lines = [" ".join(text.split()) for text in texts]
    shown = []
    for line in lines:
        others = [other for other in lines if other != line]
        alike = max((common_prefix(line, other) for other in others), default=0)
        begin = 0 if alike < width - LEAST else line.rfind(" ", 0, alike - width // 4) + 1
        shown.append(formatting.short(("…" if begin else "") + line[begin:], SHOWN))
    return shown


def _edit_answer(chat: Chat) -> None:
    """Open the last answer in an editor and save the result as a variant by the model."""
    turn = _turn(chat, "")
    if turn.answer is None:
        raise LcpError("This question has no answer yet. /retry answers it.")
    # The editor handles Ctrl-C itself, and sets its own terminal modes after fg.
    signals = [getattr(signal, n) for n in ("SIGINT", "SIGCONT") if hasattr(signal, n)]
    with handling(dict.fromkeys(signals, lambda number, frame: None)):
        text = editor.edit(turn.answer.content)
    if not text.strip() or text.rstrip() == turn.answer.content.rstrip():  # editors add a line end
        chat.screen.notice("The answer is unchanged.")
        return
    chat.go(turn.user.id)
    old = turn.answer
    edited = chat.conversation.answer(
        text, "edited", chat.model, thinking=old.thinking, out=list(old.out)
    )
    chat.keep(edited, sync=True)
    chat.screen.notice("Saved as the model's answer. /continue continues it.")


def _say_if_the_same(chat: Chat, turn: Turn) -> bool:
    """If sampling must give the same answer again, and did, say why; return whether it did."""
    children = chat.conversation.children(turn.user.id)
    *before, new = ((m.thinking, m.content) for m in children if m.role == "assistant")
    sampling = chat.settings.sampling
    why = f"the seed is {sampling.seed}. For a different one: /set seed random"
    if sampling.temp == 0:
        why = "temp is 0. For a different one: /set temp 0.8"
    same = any(new) and new in before and (sampling.temp == 0 or sampling.seed is not None)
    if same:
        chat.screen.notice(f"The same answer again: {why}")
    return same


def _answers(chat: Chat, turn: Turn) -> int:
    return sum(m.role == "assistant" for m in chat.conversation.children(turn.user.id))


def _width(chat: Chat, taken: int) -> int:
    """Characters for a question and for an answer if other columns take `taken`, so that a turn
    fits in one row if possible."""
    left = chat.screen.width - taken - 3 * len("  ")
    return max(SHORTEST, min(SHOWN, left // 2))


def _short(message: Message | None) -> str:
    return formatting.short(message.written, SHOWN) if message and message.written else NO_ANSWER


def _marks(chat: Chat, turn: Turn) -> str:
    conversation, id = chat.conversation, turn.user.id
    summary = conversation.summary()
    marks = {
        "pinned": id in conversation.pinned,
        "forgotten": id in conversation.forgotten,
        "in the note": bool(summary and id in summary.covers),
        "out": id in chat.overflow.out,
        f"{_answers(chat, turn)} answers": _answers(chat, turn) > 1,
        turn.answer.ended if turn.answer else "": bool(turn.answer and turn.answer.ended != "end"),
    }
    return ", ".join(mark for mark, holds in marks.items() if holds)
