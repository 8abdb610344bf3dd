"""The command lcp, and python -m lcp."""

import gc
import os
import signal


def main() -> None:
    """Run the command line. Ctrl-C during its imports ends it without a traceback."""
    # Else the collector goes through all modules again and again: a fifth of a short answer.
    gc.set_threshold(50_000)
    # `lcp &` in a shell script ignores SIGINT, and still does; at a terminal, Ctrl-C must work.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler or os.isatty(0):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lcp.cli import main as run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    finally:
        gc.freeze()  # the process ends: nothing is left to collect


if __name__ == "__main__":
    main()
