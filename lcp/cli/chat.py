"""`lcp chat`: a command line becomes a Chat, and the Chat runs: with a person at a terminal, for
one question, or for a question on each line of stdin.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp import paths
from lcp.cli import model_lookup, option_files, options, server_lookup, shell_completion, stdin
from lcp.cli.chat_services import find
from lcp.cli.chat_services import services as chat_services
from lcp.cli.new_or_resumed import open_conversation
from lcp.cli.options import argument, option, switch
from lcp.cli.pull import find_or_pull
from lcp.cli.script_output import ScriptOutput
from lcp.engine_interface import Constraint
from lcp.errors import LcpError, ModelNotFound, UsageError
from lcp.formatting import count
from lcp.settings import Layers, Settings, persona

if TYPE_CHECKING:
    from lcp.chat.chat import Chat
    from lcp.chat.services_interface import FoundModel, Services
    from lcp.session.conversation import Conversation
    from lcp.session.log import Log


@dataclass(frozen=True)
class ChatArguments:
    """What was typed after `lcp chat`, except the settings."""

    words: list[str] | None = argument(
        "MODEL|PROMPT", "Model name or file, then a question.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    model: str | None = option(
        "-m --model", "NAME", "Model; every word is then part of the question.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    prompt: str | None = option(
        "-p --prompt", "TEXT", "Question, even if it begins with the name of a model."
    )
    interactive: bool = switch("-i --interactive", "Continue in a chat after the answer.")
    lines: bool = switch("--lines", "Answer each line of stdin as a turn of one chat.")
    as_json: bool = switch("--json", "Print one JSON object per turn.")
    stats: bool = switch("--stats", "Show per-turn statistics on stderr.")
    resume: str | None = option(
        "--resume", "ID|NAME|last", "Continue a saved chat.",
        autocompletion=shell_completion.chats,
    )  # fmt: skip
    resume_last: bool = switch("--continue", "Continue the last chat (--resume last).")
    no_save: bool = switch("--no-save", "Save nothing to disk.")
    plain: bool = switch("--plain", "Show Markdown as the model wrote it.")
    json_schema: str | None = option(
        "--json-schema", "FILE|{…}", "Answer in JSON that matches this schema."
    )
    regex: str | None = option("--regex", "RE", "Answer in text that matches this expression.")
    grammar: str | None = option(
        "--grammar", "FILE|GBNF", "Answer in text that matches this grammar."
    )
    chat_template: Path | None = option(
        "--chat-template", "FILE|NAME", "Jinja chat template, or a template name of llama.cpp."
    )
    no_ahead: bool = switch("--no-ahead", "Process nothing before you press Enter.")
    verbose: bool = switch("--verbose", "Show llama.cpp's log.")


@dataclass(frozen=True)
class ChatJob:
    """What a command line asks for, found and checked before a model is loaded."""

    asked: ChatArguments
    layers: Layers
    persona: Mapping[str, Any] | None  # the settings of one that begins with this command
    question: str
    piped: bool
    person: bool  # someone at a terminal, who goes on talking
    terminal: int | None  # where stdin is a pipe and a person goes on
    constraint: Constraint | None
    services: "Services"
    log: "Log"
    conversation: "Conversation"
    saved: Path | None  # where its KV cache may be
    found: "FoundModel"
    notices: list[str]


def run(asked: ChatArguments, flags: dict[str, Any]) -> None:
    """Chat with a model. With a question, or if stdin is not a terminal, answer once and exit.

    Text from stdin goes before the question: git diff | lcp chat "write a commit message"
    """
    job = _job(asked, flags)
    with _chat(job) as chat:
        report = _run(job, chat)
    if report.unanswered and not job.person:
        raise LcpError(f"{count(report.unanswered, 'line')} had no answer; the reasons are above.")
    if report.broken and not job.person:
        raise LcpError(
            "The connection to the server broke before an answer was complete. Try again."
        )
    if report.cut and not job.person:
        raise LcpError(
            "An answer was cut before it was complete. Use a larger --max-tokens or --ctx-size."
        )


chat = options.command(ChatArguments, run)


# 1) What was asked for. Mistakes are reported before anything is loaded.


def _job(asked: ChatArguments, flags: dict[str, Any]) -> ChatJob:
    if "system" in flags:
        flags["system"] = option_files.system(flags["system"])
    layers = Layers.of(flags)
    settings = layers.resolve()
    template = option_files.template(asked.chat_template) if asked.chat_template else None
    services = chat_services(template, asked.verbose)
    resume = "last" if asked.resume_last else asked.resume
    persona = _persona(settings, services.personas, resuming=bool(resume))
    if persona is not None:
        layers = replace(layers, persona=persona)
        settings = layers.resolve()
    model, question = _question(asked, settings)
    piped = stdin.is_piped()
    if asked.lines and not piped:
        raise UsageError("--lines reads stdin. Pipe questions in: lcp chat --lines < FILE")
    if asked.interactive and asked.as_json:
        raise UsageError("--json is for scripts, -i for a person. Leave one of them out.")
    terminal = stdin.terminal() if asked.interactive and piped else None
    person = asked.interactive or not (asked.lines or piped or question)
    constraint, notices = option_files.constraint(asked.json_schema, asked.regex, asked.grammar)
    log, conversation, resumed, saved = open_conversation(
        resume, model, settings, asked.no_save, person
    )
    if settings.persona == conversation.settings.get("persona"):
        # Its settings are in the conversation, and what was set after it is stronger.
        persona = None
        layers = replace(layers, persona={})
    found = _model(conversation, log, asked)
    if found.path is None and template is not None:
        raise UsageError("A server uses its own chat template. Leave out --chat-template.")
    layers = replace(layers, catalog=dict(found.settings)).resuming(conversation.settings)
    return ChatJob(
        asked, layers, persona, question, piped, person, terminal, constraint, services, log,
        conversation, saved, found, [*notices, *resumed, *found.notices],
    )  # fmt: skip


def _persona(
    settings: Settings, tables: Mapping[str, Mapping[str, Any]], resuming: bool
) -> Mapping[str, Any] | None:
    """The settings of the persona that begins; a resumed chat has its own unless one is named."""
    if settings.persona and ("persona" in settings.given or not resuming):
        return dict(persona(tables, settings.persona))
    return None


def _question(asked: ChatArguments, settings: Settings) -> tuple[str | None, str]:
    """The name of the model, if there is one, and the question. With --server, -m names a model of
    that server; without the flag, a model that is named is stronger than the server of the
    settings."""
    model, words, server = asked.model, asked.words or [], settings.server
    flag = settings.sources["server"] == "flag"
    if model is None and words and not (server and flag) and model_lookup.is_model(words[0]):
        model, *words = words
    elif server and (flag or model or not (asked.resume or asked.resume_last)):
        model = server_lookup.chosen(server, model)
    return model, " ".join([*words, *([asked.prompt] if asked.prompt else [])])


def _model(conversation: "Conversation", log: "Log", asked: ChatArguments) -> "FoundModel":
    """The model of the conversation; a person is offered the download of one that is not here."""
    try:
        return find(conversation.model, partial(find_or_pull, remember=not asked.no_save))
    except ModelNotFound as error:
        if not log.is_kept:
            raise
        from lcp.chat.resume_notices import without_model

        raise without_model(error, log.id) from None


# 2) The model loads while stdin is read, or while the person already types.


@contextmanager
def _chat(job: ChatJob) -> "Iterator[Chat]":
    asked, conversation, layers = job.asked, job.conversation, job.layers
    with job.log, ExitStack() as life:
        engine = job.services.engine(job.found, layers.resolve(), conversation.created)
        life.enter_context(closing(engine))
        # llama.cpp reads the file while the rest is imported, but not before it reads: two threads
        # that import at once take twice as long. A person's prompt comes first.
        loading = None if job.person else engine.load(job.constraint, job.saved)
        if loading:
            with suppress(LcpError):  # it is raised again where the chat waits for the model
                next(iter(loading), None)
        from lcp.chat import model_switch
        from lcp.chat.chat import Chat
        from lcp.terminal.screen import Screen

        chat = Chat(
            engine, conversation, job.log, Screen(answers=not asked.as_json, plain=asked.plain),
            job.found.name, layers, not asked.no_ahead, job.services, job.constraint,
        )  # fmt: skip
        chat.loading = loading
        life.callback(model_switch.close, chat)
        if job.person:
            import lcp.chat.input_loop
            import lcp.commands
            import lcp.terminal.keyboard
        else:
            import lcp.engine.template_choice  # noqa: F401
        chat.load(job.saved)
        if job.persona is not None:
            from lcp.commands.settings import record

            record(chat, job.persona)
        _begin_with_system(chat)
        if chat.settings.raw != conversation.settings.get("raw", "off"):
            chat.keep(conversation.set(raw=chat.settings.raw))
        yield chat


def _begin_with_system(chat: "Chat") -> None:
    """Take the system prompt of the settings for a new conversation; for a resumed one only if it
    was asked for with a flag, the environment or a persona."""
    text = chat.settings.system
    asked = "system" in chat.settings.given or chat.settings.sources["system"] == "persona"
    if text != chat.conversation.system and (asked or not chat.conversation.nodes):
        chat.keep(chat.conversation.set_system(text))


# 3) The chat, run in one of its ways.


def _run(job: ChatJob, chat: "Chat") -> ScriptOutput:
    from lcp.chat import model_switch, saved_cache
    from lcp.terminal.signals import quiet

    asked, screen, question, before = job.asked, chat.screen, job.question, ""
    if job.piped and not asked.lines:
        before = stdin.read(bool(question), screen.notice)
        if not before.strip() and not question and not job.person:
            raise UsageError(
                'There is no question and stdin is empty. Ask one: lcp chat "a question", '
                "or run lcp chat in a terminal."
            )
    for notice in job.notices:
        screen.notice(notice)
    resuming = partial(_resuming, chat)
    report = ScriptOutput(
        screen, asked.as_json, asked.stats, bool(job.constraint), job.person, resuming
    )
    if job.conversation.nodes and not job.person:
        from lcp.chat.resume_notices import tell

        tell(chat)
    if asked.lines:
        _answer_lines(chat, report)
    if job.terminal is not None:
        stdin.become(job.terminal)
    # @FILE counts in what a person wrote, not in what came out of a pipe.
    above = f"{before}\n\n" if before.strip() and question else before
    if job.person:
        with quiet():  # what is typed meanwhile is in the first line
            chat = _talk(chat, above, question, report)
    elif question:
        report(chat.ask_with_files(question, above))
    elif before:
        report(chat.ask(before))
    saved_cache.save(chat)
    model_switch.close(chat)
    return report


def _answer_lines(chat: "Chat", report: ScriptOutput) -> None:
    """Each line of stdin as a turn; one that cannot be answered does not end the others."""
    for number, line in stdin.lines():
        chat.ready()  # if this fails, no line can be answered
        try:
            reply = chat.ask(line)
        except LcpError as error:
            report.refused(number, error)
        else:
            report(reply)


def _talk(chat: "Chat", before: str, question: str, report: ScriptOutput) -> "Chat":
    """With a person at a terminal, until Ctrl-D; the chat at the end, as /model and /open begin
    others."""
    from lcp import commands
    from lcp.chat import attachments
    from lcp.chat.input_loop import InputLoop
    from lcp.chat.resume_notices import show_last, tell
    from lcp.session.export import plain_name
    from lcp.terminal.keyboard import Keyboard, KeyboardOptions

    chat.screen.notice(f"{plain_name(chat.model)} · /help lists commands, Ctrl-D leaves")
    chat.screen.blank()
    if chat.conversation.nodes:
        tell(chat)
        show_last(chat)
    history = paths.data() / "history.jsonl"
    options = KeyboardOptions(
        on_text=lambda text: talk.chat.look_ahead(text),
        state=lambda: talk.status(),
        commands=commands.completions(lambda: talk.chat),
        paths=partial(attachments.completions, folder=Path()),
        keys=lambda: talk.chat.settings.keys,
        meanwhile=chat.screen.prepare,
    )
    keyboard = Keyboard(history, options)
    talk = InputLoop(chat, keyboard, commands.run)
    if before or question:
        with keyboard.ahead():
            report(chat.ask_with_files(question, before) if question else chat.ask(before))
            chat.say_status()
    talk.run()
    if command := _resuming(talk.chat):
        chat.screen.notice(f"Continue this chat: {command}")
    return talk.chat


def _resuming(chat: "Chat") -> str:
    """The command that continues this chat; "" if it is not on disk."""
    from lcp.chat.resume_notices import resuming

    return resuming(chat) if chat.log.is_kept and not chat.log.problem else ""
