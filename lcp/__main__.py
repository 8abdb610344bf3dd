"""The command lcp, and python -m lcp."""

import signal


def main() -> None:
    """Run the command line; Ctrl-C while it is still imported is no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in `lcp &`
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lcp.cli import main as run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
