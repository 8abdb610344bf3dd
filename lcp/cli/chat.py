"""`lcp chat`: a command line -> a Chat, and one of the ways to run it: with a person at a
terminal, for one question, or for a question on each line of stdin.
"""

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcp import paths
from lcp.cli import completion, options, reach, stdin
from lcp.cli.pull import ready
from lcp.cli.report import Report
from lcp.errors import LcpError, ModelNotFound, UsageError
from lcp.words import count

if TYPE_CHECKING:
    from lcp.chat.chat import Chat


def chat(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|PROMPT",
            help="Model name or file, then a question.",
            autocompletion=completion.models,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME",
            help="Model; all words are then the question.",
            autocompletion=completion.models,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "-p", "--prompt", metavar="TEXT", help="Question, whatever its first word is."
        ),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Answer each line of stdin as a turn of one chat.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per turn.")
    ] = False,
    go_into_chat: Annotated[
        bool, typer.Option("-i", "--interactive", help="Continue in a chat after the answer.")
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show per-turn statistics on stderr.")
    ] = False,
    system: options.System = None,
    persona: options.Persona = None,
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
    reasoning_effort: options.ReasoningEffort = None,
    reasoning_budget: options.ReasoningBudget = None,
    loop_guard: options.LoopGuard = None,
    keys: options.Keys = None,
    json_schema: options.JsonSchema = None,
    regex: options.Regex = None,
    grammar: options.Grammar = None,
    overflow: options.Overflow = None,
    slide: options.Slide = None,
    plain: options.Plain = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue text as it is, without a chat template.")
    ] = False,
    no_ahead: Annotated[
        bool, typer.Option("--no-ahead", help="Process nothing before Enter is pressed.")
    ] = False,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            "--chat-template",
            metavar="FILE|NAME",
            help="Jinja chat template, or the name of one of llama.cpp's.",
        ),
    ] = None,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="ID|NAME|last",
            help="Continue a saved chat.",
            autocompletion=completion.chats,
        ),
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Continue the last chat (--resume last).")
    ] = False,
    no_save: Annotated[bool, typer.Option("--no-save", help="Save nothing to disk.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show llama.cpp's log.")] = False,
) -> None:
    """Talk with a model. With a question, or a stdin that is no terminal: one answer, then exit.

    Text on stdin stands before the question: git diff | lcp chat "write a commit message"
    """
    from lcp.downloads import library
    from lcp.settings import OPTIONS, from_environment, from_file, resolve
    from lcp.settings import persona as persona_called
    from lcp.terminal.screen import Screen

    # 1) What was asked for. A setting with no meaning is said before anything is loaded.
    given = ctx.params | {"max_tokens": max_tokens or predict, "kv_type": kv_type or cache_type}
    given["raw"] = "on" if raw else None
    flags = {n: v for n, v in given.items() if n in OPTIONS and n != "model" and v}
    if system is not None:
        flags["system"] = reach.system(system)
    layers: dict[str, dict[str, Any]] = {
        "flag": flags,
        "environment": from_environment(os.environ),
        "config.toml": from_file(paths.config() / "config.toml"),
    }
    settings = resolve(layers)
    template = reach.template(chat_template) if chat_template else None
    services = reach.services(template, verbose)
    asked = settings.sources["persona"] in ("flag", "environment")
    if settings.persona and (asked or not (resume or go_on)):
        layers["persona"] = dict(persona_called(services.personas, settings.persona))
        settings = resolve(layers)
    words = words or []
    if model is None and words and library.names_model(words[0]):
        model, *words = words
    question = " ".join([*words, *([prompt] if prompt else [])])
    piped = stdin.is_piped()
    if lines and not piped:
        raise UsageError("--lines reads stdin. Pipe questions in: lcp chat --lines < FILE")
    if go_into_chat and as_json:
        raise UsageError("--json is for scripts, -i for a person. Leave one of them out.")
    tty = stdin.terminal() if go_into_chat and piped else None
    constraint, notices = reach.constraint(json_schema, regex, grammar)
    person = go_into_chat or not (lines or piped or question)
    log, conversation, resumed, saved = reach.conversation(
        "last" if go_on else resume, model, settings, no_save, person
    )
    if settings.persona == conversation.settings.get("persona"):
        layers.pop("persona", None)  # it counts already; what was set after it counts more
    try:
        found = reach.find(conversation.model, partial(ready, remember=not no_save))
    except ModelNotFound as error:
        if not log.is_kept:
            raise
        from lcp.chat.resume import without_model

        raise without_model(error, log.id) from None
    layers["models.toml"] = dict(found.settings)
    # a newer lcp may have set what this one does not know
    layers["conversation"] = {n: v for n, v in conversation.settings.items() if n in OPTIONS}
    screen = Screen(answers=not as_json, plain=plain)
    from lcp.chat import saved_cache, switch
    from lcp.chat.chat import Chat
    from lcp.chat.resume import tell
    from lcp.commands import settings as choosing
    from lcp.terminal.signals import quiet

    # 2) The model loads while stdin is read, or while the person already types.
    with log, ExitStack() as life:
        engine = life.enter_context(services.engine(found, resolve(layers), conversation.created))
        ahead = not no_ahead
        chat = Chat(
            engine, conversation, log, screen, found.name, layers, ahead, services, constraint
        )
        life.callback(switch.close, chat)  # what it stands in at the end
        if person:  # two threads that import at once take twice as long to the prompt
            import lcp.terminal.keyboard  # noqa: F401
        chat.load(saved)
        if "persona" in layers:
            choosing.record(chat, layers["persona"])
        _begin_with_system(chat)
        if chat.settings.raw != conversation.settings.get("raw", "off"):
            chat.keep(conversation.set(raw=chat.settings.raw))  # the chat goes on as it began
        before = ""
        if piped and not lines:
            before = stdin.read(bool(question), screen.notice)
            if not before.strip() and not question and not person:
                raise UsageError(
                    'There is no question and stdin is empty. Ask one: lcp chat "a question", '
                    "or run lcp chat in a terminal."
                )
        for notice in [*notices, *resumed, *found.notices]:
            screen.notice(notice)
        # 3) The chat, run in one of its ways.
        go_on_with = partial(_go_on_with, chat)
        report = Report(screen, as_json, stats, bool(constraint), person, go_on_with)
        if conversation.nodes and not person:
            tell(chat)
        if lines:
            for number, line in stdin.lines():
                chat.ready()  # where this fails, no line can be answered
                try:
                    reply = chat.ask(line)
                except LcpError as error:
                    report.refused(number, error)
                else:
                    report(reply)
        if tty is not None:
            stdin.become(tty)
        # @FILE counts in what the person wrote, not in what came out of a pipe
        above = f"{before}\n\n" if before.strip() and question else before
        if person:
            with quiet():  # what is typed meanwhile stands in the first line
                _talk(chat, above, question, report)
        elif question:
            report(chat.ask_with_files(question, above))
        elif before:
            report(chat.ask(before))
        saved_cache.save(chat)
    if report.unanswered and not person:
        raise LcpError(f"{count(report.unanswered, 'line')} had no answer; the reasons are above.")
    if report.cut and not person:
        raise LcpError(
            "An answer was cut before it was whole. Give a larger --max-tokens or --ctx-size."
        )


def _talk(chat: "Chat", before: str, question: str, report: Report) -> None:
    from lcp import commands
    from lcp.chat import attachments
    from lcp.chat.loop import Talk
    from lcp.chat.resume import show_last, tell
    from lcp.chat.status import Status
    from lcp.session.export import plain_name
    from lcp.terminal.keyboard import Keyboard

    chat.screen.notice(f"{plain_name(chat.model)} · /help lists commands, Ctrl-D leaves")
    chat.screen.blank()
    if chat.conversation.nodes:
        tell(chat)
        show_last(chat)
    history = paths.data() / "history.jsonl"
    keyboard = Keyboard(
        history,
        on_text=chat.look_ahead,
        state=Status(chat),
        commands=commands.completions(chat),
        paths=partial(attachments.completions, folder=Path()),
        keys=lambda: chat.settings.keys,
        meanwhile=chat.screen.prepare,
    )
    talk = Talk(chat, keyboard, commands.run)
    if before or question:
        with keyboard.ahead():
            report(chat.ask_with_files(question, before) if question else chat.ask(before))
            chat.say_status()
    talk.run()
    if command := _go_on_with(chat):
        chat.screen.notice(f"Go on with this chat: {command}")


def _go_on_with(chat: "Chat") -> str:
    """The command that goes on with this chat; "" if it is not on disk."""
    from lcp.chat.resume import resuming

    return resuming(chat) if chat.log.is_kept and not chat.log.problem else ""


def _begin_with_system(chat: "Chat") -> None:
    """The system text of the settings counts for a new conversation, and where it was asked for
    with a flag, the environment or a persona."""
    text = chat.settings.system
    asked = chat.settings.sources["system"] in ("flag", "environment", "persona")
    if text != chat.conversation.system and (asked or not chat.conversation.nodes):
        chat.keep(chat.conversation.set_system(text))
