"""`lcp chat`: a command line -> a Chat, and one of the ways to run it: with a person at a
terminal, for one question, or for a question on each line of stdin.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcp import paths
from lcp.cli import options
from lcp.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from lcp.chat import Chat
    from lcp.downloads.library import Installed
    from lcp.engine.engine import Engine
    from lcp.engine.reply import Reply
    from lcp.session.conversation import Conversation
    from lcp.session.log import Log
    from lcp.settings import Settings
    from lcp.terminal.screen import Screen


def chat(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL|PROMPT", help="A model's name or file; a question."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", metavar="NAME", help="The model; then all words are the question."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "-p", "--prompt", metavar="TEXT", help="The question, whatever its first word is."
        ),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of stdin is a turn of one conversation.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per turn: answer, thinking, stats.")
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="After each turn all its figures, on stderr.")
    ] = False,
    system: options.System = None,
    temp: options.Temp = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repeat_penalty: options.RepeatPenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = None,
    predict: options.Predict = None,
    stop: options.Stop = None,
    ctx_size: options.CtxSize = None,
    n_gpu_layers: options.NGpuLayers = None,
    threads: options.Threads = None,
    kv_type: options.KvType = None,
    cache_type: options.CacheType = None,
    flash_attn: options.FlashAttn = None,
    think: options.Think = None,
    overflow: options.Overflow = None,
    slide: options.Slide = None,
    no_ahead: Annotated[
        bool, typer.Option("--no-ahead", help="Read nothing before Enter is pressed.")
    ] = False,
    chat_template: Annotated[
        Path | None, typer.Option("--chat-template", metavar="FILE", help="A Jinja chat template.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID|last", help="Go on with a saved chat.")
    ] = None,
    go_on: Annotated[bool, typer.Option("--continue", help="The same as --resume last.")] = False,
    no_save: Annotated[bool, typer.Option("--no-save", help="Keep nothing on disk.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what llama.cpp says.")] = False,
) -> None:
    """Talk with a model. With a question, or a stdin that is no terminal: one answer, then exit.

    Text on stdin stands before the question: git diff | lcp chat "write a commit message"
    """
    from lcp.downloads import library
    from lcp.settings import OPTIONS, from_environment, from_file, resolve
    from lcp.terminal.screen import Screen

    # 1) What was asked for. A setting with no meaning is said before anything is loaded.
    given = ctx.params | {"max_tokens": max_tokens or predict, "kv_type": kv_type or cache_type}
    flags = {n: v for n, v in given.items() if n in OPTIONS and n != "model" and v}
    if system is not None:
        flags["system"] = _system_text(system)
    layers: dict[str, dict[str, Any]] = {
        "flag": flags,
        "environment": from_environment(os.environ),
        "config.toml": from_file(paths.config() / "config.toml"),
    }
    settings = resolve(layers)
    words = words or []
    if model is None and words and library.names_model(words[0]):
        model, *words = words
    question = " ".join([*words, *([prompt] if prompt else [])])
    piped = not sys.stdin.isatty()
    if piped:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]  # any file may come
    if lines and not piped:
        raise UsageError("--lines reads stdin. Pipe questions in: lcp chat --lines < FILE")
    log, conversation, notices, saved = _conversation(
        "last" if go_on else resume, library, model, settings, no_save
    )
    found = library.find(conversation.model)
    layers["models.toml"] = dict(found.entry.settings) if found.entry else {}
    # a newer lcp may have set what this one does not know
    layers["conversation"] = {n: v for n, v in conversation.settings.items() if n in OPTIONS}
    screen = Screen(answers=not as_json)
    from lcp import keeping
    from lcp.chat import Chat

    # 2) The model loads while stdin is read, or while the person already types.
    interactive = not (lines or piped or question)
    with log, _engine(found, layers, conversation, chat_template, verbose) as engine:
        model = conversation.model
        chat = Chat(engine, conversation, log, screen, model, layers, not no_ahead)
        chat.load(saved)
        chat.begin_with_system()
        if piped and not lines:
            text = sys.stdin.read()
            question = "\n\n".join(part for part in (text.rstrip("\n"), question) if part.strip())
            if not question:
                raise UsageError(
                    'There is no question and stdin is empty. Ask one: lcp chat "a question", '
                    "or run lcp chat in a terminal."
                )
        for notice in notices:
            screen.notice(notice)
        # 3) The chat, run in one of its ways.
        report = _Report(screen, as_json, stats)
        if interactive:
            _talk(chat, found)
        elif lines:
            for line in sys.stdin:
                if line.strip():
                    report(chat.ask(line.rstrip("\n")))
        else:
            report(chat.ask(question))
        keeping.save(chat)


@dataclass
class _Report:
    """What scripts get after each turn."""

    screen: "Screen"
    as_json: bool
    stats: bool

    def __call__(self, reply: "Reply") -> None:
        if self.as_json:
            line = {
                "answer": reply.text,
                "thinking": reply.thinking,
                "ended": reply.ended,
                "stats": reply.stats.as_dict(),
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        if self.stats:
            self.screen.notice(reply.stats.long_line())
        if reply.ended == "interrupted":
            raise KeyboardInterrupt


def _talk(chat: "Chat", model: "Installed") -> None:
    from lcp import commands
    from lcp.terminal.keyboard import Keyboard

    chat.screen.notice(f"{model.name} · /help lists commands, Ctrl-D leaves")
    chat.screen.blank()
    history = paths.data() / "history.jsonl"
    chat.talk(Keyboard(history, on_text=chat.look_ahead, state=chat.state), commands.run)
    if chat.log.id and chat.conversation.nodes and not chat.log.problem:
        chat.screen.notice(f"Go on with this chat: lcp chat --resume {chat.log.id}")


def _system_text(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The system text {given[1:]} cannot be read: {error}.") from error


def _conversation(
    resume: str | None, library: Any, model: str | None, settings: "Settings", no_save: bool
) -> tuple["Log", "Conversation", list[str], Path | None]:
    """The saved conversation that was named, or a new one, with the log to write it to, what
    should be said of it, and where its KV cache may lie."""
    from lcp.session.conversation import Conversation, local_now
    from lcp.session.log import Log
    from lcp.session.store import Store

    store = Store(paths.sessions())
    if resume is None:
        name = model or settings.model or library.default().name
        conversation = Conversation.begin(local_now, _absolute(name))
        log = Log.nowhere() if no_save else store.create(conversation.opening)
        return log, conversation, [], None
    log, events, notices = store.open(resume)
    conversation = Conversation.from_events(events)
    turns = len(conversation.turns())
    plural = "turn" if turns == 1 else "turns"
    notices.append(f"Resumed {log.id} ({turns} {plural}): {conversation.title()}")
    if turns and conversation.turns()[-1].answer is None:
        notices.append("Its last question has no answer yet; /retry answers it.")
    saved = log.path.with_suffix(".kv") if log.path else None
    if no_save:
        log.close()
        log = Log.nowhere()
    # what the chat was talking with is stronger than config.toml, as all its settings are
    if model := model or (settings.model if settings.sources["model"] == "environment" else None):
        conversation.model = _absolute(model)
    return log, conversation, notices, saved


def _absolute(model: str) -> str:
    """A path is kept so that it is found from any folder; a name as it is."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_file() else model


def _engine(
    found: "Installed",
    layers: dict[str, dict[str, Any]],
    conversation: "Conversation",
    template: Path | None,
    verbose: bool,
) -> "Engine":
    from lcp.engine import native, probe
    from lcp.engine.engine import Engine
    from lcp.settings import resolve

    native.log.verbose = verbose
    probe.check_once(paths.cache())
    try:
        source = template.read_text("utf-8") if template else None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The template {template} cannot be read: {error}.") from error
    return Engine(found.path, resolve(layers), now=conversation.created, template=source)
