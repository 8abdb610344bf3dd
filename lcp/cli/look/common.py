"""What all commands of `lcp look` share: their options, the model, the thread, the output."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lcp import paths
from lcp.cli import free_memory, option_files, shell_completion
from lcp.cli.chat_services import find, title
from lcp.cli.options import argument, option, switch
from lcp.errors import LcpError, TemplateError, UsageError
from lcp.formatting import count
from lcp.machine import physical_cores
from lcp.settings import Layers, Settings
from lcp.worker import Worker

if TYPE_CHECKING:
    from lcp.engine.context import Context
    from lcp.engine.model import Model
    from lcp.engine.observer import Observer
    from lcp.terminal.printout import Printout

Result = TypeVar("Result")

SETTINGS = ("n_gpu_layers", "threads")  # flags that all commands have
_PLAIN: dict[str, Any] = {"ctx_size": 512, "kv_type": "f16", "flash_attn": "off"}
SILENT = 2.0  # seconds of work without a word
REPAINTED = 0.2  # seconds between two looks at the progress


@dataclass(frozen=True)
class LookArguments:
    """What can be typed after each `lcp look` command, except the settings."""

    words: list[str] | None = argument(
        "[MODEL] TEXT", "Model name or file, then the text.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    model: str | None = option(
        "-m --model", "NAME", "Model; every word is then part of the text.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    as_json: bool = switch("--json", "Print one JSON object.")
    svg: Path | None = option("--svg", "FILE", "Also save the picture as SVG.")


def as_chat() -> Any:
    """The flag --chat."""
    return switch("--chat", "Put the text into the chat template, as a question.")


class Work:
    """A thread for what takes long, so that Ctrl-C ends it within a second. The progress of such
    work is shown once it takes longer than a moment."""

    def __init__(self) -> None:
        from lcp.engine.llama_library import StopByte
        from lcp.terminal.screen import Screen

        self.stop = StopByte()
        self.seconds = 0.0  # of all that was done
        self._doing = ""
        self._screen, self._worker = Screen(), Worker()

    def __call__(self, job: Callable[..., Result], *given: Any, **more: Any) -> Result:
        """What the function returns for these arguments."""
        begun, ended = time.monotonic(), threading.Event()
        task = self._worker.submit(lambda emit: job(*given, **more))
        task.call_when_done(ended.set)
        while not ended.wait(REPAINTED):
            if time.monotonic() - begun > SILENT:
                self._screen.progress(self._doing)
        self._screen.clear_progress()
        self.seconds += time.monotonic() - begun
        return task.result()

    def tell(self, what: str, done: int, total: int) -> None:
        """What is being done, and how much of how much: called by the work."""
        from lcp.engine.context import Stopped

        if self.stop.is_set():
            raise Stopped
        self._doing = f"{what}: {done:,} of {total:,} (Ctrl-C stops)"

    def close(self) -> None:
        """Stop the work, and wait for its end: a second Ctrl-C must not free what it uses."""
        from lcp.terminal.signals import handling

        with handling({signal.SIGINT: lambda number, frame: None}):
            self.stop.set()
            self._worker.close()
        self._screen.clear_progress()


@dataclass(frozen=True)
class OpenModel:
    """A loaded model, to look into it."""

    model: "Model"
    name: str  # what people call it
    settings: Settings
    work: Work  # runs what takes long
    _life: ExitStack

    @property
    def _threads(self) -> int:
        return self.settings.threads or physical_cores()

    def observe(self, tokens: int, *, rows: int = 1, sequences: int = 1, **more: Any) -> "Observer":
        """A context for so many tokens, whose tensors can be watched; freed after the job."""
        from lcp.engine.observer import Observer

        made = Observer(
            self.model, self.work.stop, size=tokens, rows=rows, sequences=sequences,
            threads=self._threads, free=free_memory.free(), **more,
        )  # fmt: skip
        return self._life.enter_context(made)

    def context(self, tokens: int) -> "Context":
        """A context as a chat has it; freed after the job."""
        from lcp.engine.context import Context

        made = Context(self.model, tokens, self.work.stop, threads=self._threads, flash_attn="off")
        self._life.callback(made.close)
        return made

    def tokens(
        self, text: str, *, chat: bool = False, least: int = 2, read: bool = True
    ) -> list[int]:
        """The tokens of a text, from BOS on. LcpError if there are fewer than `least`, or, if the
        model will `read` them, more than it was trained for."""
        model = self.model
        if not text.strip():
            raise UsageError('There is no text. Give one in quotes: "Once upon a time"')
        found = model.tokenize(self.prompt(text) if chat else text)
        if model.adds_bos and model.bos >= 0 and found[:1] != [model.bos]:
            found = [model.bos, *found]
        if len(found) < least:
            raise UsageError(
                f'"{text}" is {count(len(found), "token")}, and {least} are needed: the first '
                "token has nothing to look back at. Give a longer text."
            )
        if read:
            self.check_length(len(found), "The text has")
        return found

    def check_length(self, tokens: int, what: str) -> None:
        """LcpError if the model would read more tokens than it was trained for."""
        trained = self.model.n_ctx_train
        if trained and tokens > trained:
            raise LcpError(
                f"{what} {tokens:,} tokens, and {self.name} was trained for {trained:,}. "
                "Give a shorter text."
            )

    def token(self, text: str) -> int:
        """The token that a text stands for: a word after a blank, the text itself, or the number
        of a token. UsageError if it is none, or several."""
        if not text:
            raise UsageError("A token is missing. Give a word, or the number of a token.")
        if text.isdecimal() and int(text) < self.model.n_vocab:
            return int(text)
        for spelled in (f" {text}", text):
            found = self.model.tokenize(spelled, special=True)
            if len(found) == 1:
                return found[0]
        pieces = ", ".join(f"{self.piece(t)!r} ({t})" for t in self.model.tokenize(text)[:8])
        raise UsageError(
            f"{text!r} is not a token of {self.name}"
            + (f": it is several, {pieces}. Give one of them, by its number." if pieces else ".")
        )

    def piece(self, token: int) -> str:
        """What a token spells."""
        return self.model.spelled(token)

    def visible(self, token: int) -> str:
        """The same, with visible blanks."""
        from lcp.terminal.token_charts import visible

        return visible(self.piece(token))

    def named(self, token: int, **more: Any) -> dict[str, Any]:
        """A token for JSON: its number, what it spells, and more facts about it."""
        return {"id": int(token), "text": self.piece(token), **more}

    def prompt(self, text: str) -> str:
        """A question as the chat template writes it. LcpError if the model has none."""
        from datetime import datetime

        from lcp.engine.template_choice import of_model

        if not self.model.chat_template:
            raise LcpError(
                f"{self.name} has no chat template: it is a base model, which continues text. "
                "Leave out --chat."
            )
        asked = [{"role": "user", "content": text}]
        try:
            choice = of_model(self.model, self.name, datetime.now().astimezone())
            return choice.template.render(asked, self.settings.template_variables, ask=True)
        except TemplateError as error:  # without its advice: lcp look takes no other template
            raise TemplateError(
                f"{error} Choose another model, or look at a text without the template."
            ) from error


def words_of(asked: LookArguments) -> tuple[str | None, list[str]]:
    """The name of the model, if the first word is one, and the other words."""
    from lcp.downloads import library

    model, words = asked.model, list(asked.words or ())
    if model is None and words and library.is_model(words[0]):
        model, *words = words
    return model, words


def text_of(asked: LookArguments) -> tuple[str | None, str]:
    """The name of the model, if the first word is one, and the text of the others."""
    name, words = words_of(asked)
    return name, read(" ".join(words))


def read(text: str) -> str:
    """The text itself, or of @FILE the text of the file."""
    return option_files.text(Path(text[1:]), "text") if text[:1] == "@" and len(text) > 1 else text


def head_of(text: str, layers: int, heads: int) -> tuple[int, int]:
    """ "23.4" as layer and head. UsageError for one that does not exist."""
    layer, dot, head = text.partition(".")
    if dot and layer.isdecimal() and head.isdecimal() and int(layer) < layers and int(head) < heads:
        return int(layer), int(head)
    raise UsageError(
        f"There is no head {text}: this model has the layers 0 to {layers - 1}, each with the "
        f"heads 0 to {heads - 1}. Write LAYER.HEAD: {layers - 1}.0"
    )


@contextmanager
def models(name: str | None, flags: Mapping[str, Any], *more: str) -> "Iterator[list[OpenModel]]":
    """Load the model of this name, or the default one, and those named by `more`, until the end of
    the block."""
    layers, work = Layers.of(flags), Work()
    with ExitStack() as life:
        try:
            names = (name or layers.resolve().model, *more)
            opened = [_load(one, layers, work, life) for one in names]
            work.seconds = 0.0
            yield opened
        finally:
            work.close()  # before the models and contexts are freed


def _load(name: str | None, layers: Layers, work: Work, life: ExitStack) -> OpenModel:
    """The model of this name, or the default one, in memory until the end of `life`."""
    from lcp.chat import memory_fit
    from lcp.downloads import library
    from lcp.engine import cpu_check
    from lcp.engine.model import Model

    found = find(name or "", library.find if name else lambda _: library.default())
    shown = title(found.file.name, name)
    gpu = cpu_check.check_once(paths.cache())
    plain = replace(layers.resolve(), **_PLAIN)
    plan = memory_fit.choose(found.file, plain, free_memory.figures_folder(), gpu, shown)

    def loading(fraction: float) -> bool:
        if not work.stop.is_set():
            work.tell(f"loading {shown}", round(100 * fraction), 100)
        return not work.stop.is_set()

    model = work(Model.load, found.file, plan.n_gpu_layers, loading, plan.repack, name=shown)
    life.callback(model.close)
    advised = replace(layers, catalog=found.settings, model_file=model.sampling).resolve()
    return OpenModel(model, shown, advised, work, life)


def publish(
    asked: LookArguments, opened: OpenModel, data: Mapping[str, Any],
    show: "Callable[[Printout], None]",
) -> None:  # fmt: skip
    """Print what was found: for people, or as JSON; and save it as a picture if asked to."""
    from lcp.terminal.printout import Printout
    from lcp.terminal.screen import Screen

    if asked.as_json:
        told = {**data, "seconds": round(opened.work.seconds, 3)}
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    else:
        show(Printout())
    if asked.svg:
        page = Printout(picture=True)
        show(page)
        _save(page.svg(f"lcp {' '.join(sys.argv[1:3])}"), asked.svg)
        Screen().notice(f"Saved {asked.svg}.")


def _save(picture: str, file: Path) -> None:
    """Write a new file: all of it, or none."""
    try:
        out = file.open("x", encoding="utf-8")
        try:
            with out:
                out.write(picture)
        except OSError:  # the disk is full
            file.unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise UsageError(
            f"{file} exists already. Remove it, or give another file with --svg."
        ) from None
    except OSError as error:
        raise LcpError(f"Cannot write {file}: {error.strerror}. Choose another file.") from None
