"""The slash commands that go back in a conversation. Nothing is overwritten: the head moves in
the tree, and the next feed keeps what both paths share.

Turns are counted from 1, as /history shows them.
"""

import signal
from collections.abc import Sequence

from lcp import words
from lcp.chat import resume, window_notices
from lcp.chat.chat import Chat
from lcp.commands.command import Command
from lcp.errors import LcpError
from lcp.session.message import Message, Turn
from lcp.terminal import editor
from lcp.terminal.signals import handling

SHORTEST, SHOWN = 16, 40  # characters of a message in a table
WIDE = 60  # columns from which on the turn is named at which a branch begins
LEAST = 4  # of them that are seen of a difference
NO_ANSWER = "(no answer)"
VARIANTS = 9  # answers to one question in one go, at most


def undo(chat: Chat, argument: str) -> None:
    """Take back the last n turns."""
    said = chat.conversation.said()
    n = words.number(argument, len(said), "a number of turns to take back") if argument else 1
    chat.go(said[-n].user.parent)
    chat.screen.notice(f"{words.count(n, 'turn')} taken back; /branches has what was there.")


def edit(chat: Chat, argument: str) -> str | None:
    """The n-th question (the last) back into the line; what follows it stays in its branch. Or
    the last answer in the person's editor."""
    if argument == "answer":
        _edit_answer(chat)
        return None
    turn = _turn(chat, argument)
    chat.go(turn.user.parent)
    chat.screen.notice("Change it and press Enter, or Ctrl-C; what was there stays a branch.")
    return turn.user.written


def retry(chat: Chat, argument: str) -> None:
    """Answer the n-th question (the last) once more, or K times; the answers before stay."""
    *which, times = argument.split() or [""]
    if not times.startswith("x"):
        which, times = [argument], "x1"
    turn = _turn(chat, " ".join(which))
    if turn.user.id != chat.conversation.turns()[-1].user.id:
        chat.screen.notice("What follows that turn stays on its branch.")
    for _ in range(words.number(times[1:] or times, VARIANTS, "a number of answers")):
        before, variants = chat.conversation.head, _answers(chat, turn) + 1
        if variants > 1:
            chat.screen.notice(f"Variant {variants} of this answer; /branches has the others.")
        chat.go(turn.user.id)
        reply = chat.answer_or_go(before)  # the answers before stay where they were
        same = _say_if_the_same(chat, turn)
        chat.say_status()
        if same or reply.ended == "interrupted":
            break


def go_on(chat: Chat, _: str) -> None:
    """Continue the last answer, which was cut."""
    chat.go_on()
    chat.say_status()


def branch(chat: Chat, argument: str) -> None:
    """Go back to just after the n-th turn; what follows it stays in its branch."""
    turn = _turn(chat, argument)
    if turn.answer is None:
        raise LcpError("This question has no answer yet. /retry answers it.")
    chat.go(turn.answer.id)
    chat.screen.notice("A new branch begins here; /branches has the others.")


def branches(chat: Chat, argument: str) -> None:
    """List the branches; with a number, switch to that one."""
    conversation = chat.conversation
    leaves = conversation.branches()
    if not leaves:
        raise LcpError("There are no branches yet. Ask something first.")
    if argument:
        leaf = leaves[words.number(argument, len(leaves), "a branch") - 1]
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
        where = f"after turn {turn} of branch {words.either(inside)}" if here else ""
        where = where or "before the first turn"
        chat.screen.notice(f"You are {where}; the next question begins another branch.")


def pin(chat: Chat, argument: str) -> None:
    """Keep the n-th turn in the window, whatever slides; once more lets it go."""
    if not argument:
        raise LcpError("Say which turn: /pin 1. /history counts them.")
    id = _turn(chat, argument).user.id
    on = id not in chat.conversation.pinned
    if on and chat.loading is None:
        chat.overflow.check_pin(id, chat.settings)
    chat.keep(chat.conversation.pin(id, on))
    chat.screen.notice(f"Turn {argument} is {'pinned' if on else 'no longer pinned'}.")


def forget(chat: Chat, argument: str) -> None:
    """Leave the n-th turn out of what the model sees; once more brings it back."""
    if not argument:
        raise LcpError("Say which turn: /forget 1. /history counts them.")
    id = _turn(chat, argument).user.id
    on = id not in chat.conversation.forgotten
    chat.forget(id, on)
    chat.screen.notice(
        f"The model no longer sees turn {argument}; the log keeps it."
        if on
        else f"The model sees turn {argument} again."
    )


def history(chat: Chat, argument: str) -> None:
    """The turns of this branch, with their marks; or the n-th whole."""
    said = chat.conversation.said()
    if argument:
        resume.show(chat, _turn(chat, argument))
        return
    chat.screen.table(
        [
            (str(i), _marks(chat, turn), _short(turn.user), _short(turn.answer))
            for i, turn in enumerate(said, 1)
        ],
        cut=(2, 3),
    )


def context(chat: Chat, _: str) -> None:
    """What fills the window."""
    chat.ready()
    chat.screen.bar(chat.overflow.shares(chat.settings), chat.engine.size)
    if files := chat.overflow.files():
        chat.screen.notice(f"Files the model sees: {', '.join(files)}")
    if unseen := window_notices.unseen(chat.overflow):
        chat.screen.notice(unseen)


def clear(chat: Chat, _: str) -> None:
    chat.keep(chat.conversation.clear())
    chat.screen.notice("The conversation begins anew; the log keeps what was said.")


def _turn(chat: Chat, argument: str) -> Turn:
    said = chat.conversation.said()
    n = words.number(argument, len(said), "a turn") if argument else len(said)
    return said[n - 1]


def _turn_of(chat: Chat, id: str) -> Turn:
    """The turn that a message belongs to; of a question, with its only answer."""
    message = chat.conversation.nodes[id]
    if message.role != "user" and message.parent is not None:
        return Turn(chat.conversation.nodes[message.parent], message)
    answers = chat.conversation.children(id)
    return Turn(message, answers[0] if len(answers) == 1 else None)


def _apart(texts: Sequence[str], width: int) -> list[str]:
    """The texts on one line each; where two begin alike for longer than `width`, which is about
    what a table has room for, from a little before they differ."""
    lines = [" ".join(text.split()) for text in texts]
    shown = []
    for line in lines:
        others = [other for other in lines if other != line]
        alike = max((words.common_prefix(line, other) for other in others), default=0)
        begin = 0 if alike < width - LEAST else line.rfind(" ", 0, alike - width // 4) + 1
        shown.append(words.short(("…" if begin else "") + line[begin:], SHOWN))
    return shown


def _edit_answer(chat: Chat) -> None:
    """The last answer as the person would have it: a variant that the model takes for its own."""
    turn = _turn(chat, "")
    if turn.answer is None:
        raise LcpError("This question has no answer yet. /retry answers it.")
    # The editor has a Ctrl-C of its own, and a terminal in modes of its own after fg.
    signals = [getattr(signal, n) for n in ("SIGINT", "SIGCONT") if hasattr(signal, n)]
    with handling(dict.fromkeys(signals, lambda number, frame: None)):
        text = editor.edit(turn.answer.content)
    if not text.strip() or text.rstrip() == turn.answer.content.rstrip():  # editors end the line
        chat.screen.notice("The answer is as it was.")
        return
    chat.go(turn.user.id)
    event = chat.conversation.answer(
        text,
        thinking=turn.answer.thinking,
        out=turn.answer.out,
        ended="edited",
        model=chat.model,
        sampling={},
        seed=None,
        stats={},
    )
    chat.keep(event, sync=True)
    chat.screen.notice("The model takes this for its answer now; /continue goes on with it.")


def _say_if_the_same(chat: Chat, turn: Turn) -> bool:
    """Why the new answer is one that was there before, and always will be; where it is so."""
    children = chat.conversation.children(turn.user.id)
    *before, new = ((m.thinking, m.content) for m in children if m.role == "assistant")
    sampling = chat.settings.sampling
    why = f"the seed is {sampling.seed}. /set seed random draws others."
    if sampling.temp == 0:
        why = "temp is 0. /set temp 0.8 draws others."
    same = any(new) and new in before and (sampling.temp == 0 or sampling.seed is not None)
    if same:
        chat.screen.notice(f"The same answer again: {why}")
    return same


def _answers(chat: Chat, turn: Turn) -> int:
    return sum(m.role == "assistant" for m in chat.conversation.children(turn.user.id))


def _width(chat: Chat, taken: int) -> int:
    """Characters for a question and for an answer, in columns behind those that are `taken`: a
    turn is one row where it can be."""
    left = chat.screen.width - taken - 3 * len("  ")
    return max(SHORTEST, min(SHOWN, left // 2))


def _short(message: Message | None, width: int = SHOWN) -> str:
    return words.short(message.written, width) if message else NO_ANSWER


def _marks(chat: Chat, turn: Turn) -> str:
    conversation, id = chat.conversation, turn.user.id
    summary = conversation.summary()
    marks = {
        "pinned": id in conversation.pinned,
        "forgotten": id in conversation.forgotten,
        "in the note": bool(summary and id in summary.covers),
        "out": id in chat.overflow.out(),
        f"{_answers(chat, turn)} answers": _answers(chat, turn) > 1,
        turn.answer.ended if turn.answer else "": bool(turn.answer and turn.answer.ended != "end"),
    }
    return ", ".join(mark for mark, holds in marks.items() if holds)


COMMANDS = (
    Command(
        "The last turns",
        "retry",
        "[N] [xK]",
        "answer the last question, or the Nth, once more, or K times",
        retry,
    ),
    Command("The last turns", "continue", "", "go on with an answer that was cut", go_on),
    Command("The last turns", "undo", "[N]", "take back the last turn, or N turns", undo),
    Command(
        "The last turns",
        "edit",
        "[N|answer]",
        "change the last question, or the Nth; or the last answer",
        edit,
        lambda chat, begun: ("answer",),
    ),
    Command(
        "The conversation", "history", "[N]", "list the turns of this branch; show turn N", history
    ),
    Command("The conversation", "branch", "[N]", "go back to after turn N; the rest stays", branch),
    Command("The conversation", "branches", "[K]", "list the branches; go to branch K", branches),
    Command("The conversation", "pin", "N", "keep turn N in the window, or let it go again", pin),
    Command(
        "The conversation", "forget", "N", "hide turn N from the model, or show it again", forget
    ),
    Command("The conversation", "context", "", "show what fills the context window", context),
    Command("The conversation", "clear", "", "start a new conversation", clear),
)
