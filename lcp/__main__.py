"""The command lcp, and python -m lcp."""

import os
import signal


def main() -> None:
    """Run the command line; Ctrl-C while it is still imported is no traceback."""
    # Ignored, as in a script's `lcp &`, it stays so; but who has the keyboard means it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler or os.isatty(0):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lcp.cli import main as run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
