"""The front door: parse, call one function, turn an LcpError into one line and an exit code.

Heavy packages are imported inside the command that needs them: `lcp --help` pays for typer only.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import typer.core

import lcp
from lcp.cli.lazy_commands import LazyCommands
from lcp.cli.plain_values import convert_without_pydantic
from lcp.errors import LcpError, refused

app = typer.Typer(
    name="lcp",
    cls=LazyCommands,
    help="Chat with local language models in the terminal.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Chat with local language models in the terminal."""
    if version:
        sys.stdout.write(f"lcp {lcp.__version__}\n")
        raise typer.Exit


def main() -> None:
    """Run a command line; the exit codes are listed in docs/usage.md."""
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:  # closed by whoever started us
            setattr(sys, stream, Path(os.devnull).open(mode))  # noqa: SIM115
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda n, _: sys.exit(128 + n))
    if not os.environ.get("COLUMNS", "80").strip("0"):
        del os.environ["COLUMNS"]  # no width: rich would print nothing
    convert_without_pydantic()
    # <str> and <path> say nothing to a person
    typer.core.TyperArgument.display_type_rich = lambda self, ctx: ""  # type: ignore[method-assign]
    if "_LCP_COMPLETE" in os.environ:
        sys.modules["rich"] = None  # type: ignore[assignment]  # typer would load it for the shell
    if any(word.endswith("-completion") for word in sys.argv[1:2]):
        from lcp.cli.shell_completion import mend_scripts

        mend_scripts()
    try:
        sys.exit(app(standalone_mode=False))  # what typer.Exit carries, and 130 after Ctrl-C
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer makes it a 1
            sys.exit(141)
        raise
    except LcpError as error:
        from lcp.chat.error_advice import with_advice
        from lcp.terminal.screen import Screen

        Screen(sys.stderr).error(f"lcp: {with_advice(error)}")
        sys.exit(error.exit_code)
    except typer.TyperException as error:  # a usage error, with the usage line
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        from lcp.terminal.screen import Screen

        Screen(sys.stderr).error(f"lcp: {refused(error)}")
        sys.exit(1)
    finally:
        # Where the reader of our output has left, what is still buffered has nowhere to go.
        for output in (sys.stdout, sys.stderr):
            try:
                output.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
