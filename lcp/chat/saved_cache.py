"""Saves the KV cache beside the log of a chat, so that resuming reads nothing."""

from contextlib import suppress
from pathlib import Path

from lcp import formatting
from lcp.chat.chat import Chat
from lcp.chat.window_notices import REREAD
from lcp.errors import LcpError, NotSupported
from lcp.terminal.signals import pressed, stopping

CTRL_D = b"\x04"
WORTH_SAVING = 3.0  # seconds that reading the chat again would take


def save(chat: Chat) -> None:
    """Save the cache if reading the chat again would take long; Ctrl-D stops it.

    Few one-shots are ever resumed: one gets a file only when it has been resumed once.
    """
    limit, log = chat.settings.kv_files << 20, chat.log.path
    if not log or chat.log.problem or not limit or chat.stats is None:
        return
    if chat.conversation.is_one_shot and chat.log.is_new:
        return
    path = log.with_suffix(".kv")
    try:
        used = chat.engine.used(chat.overflow.expected(chat.settings))
    except LcpError:  # the chat template cannot print it
        return
    speed = chat.stats.tokens_per_second
    held = min(used, chat.engine.cached)  # not all of it if the reading was stopped
    # If nothing long was read, the estimate comes from the speed of answers: reading is several
    # times as fast. Without any answer, a file that was worth saving before still is.
    again = chat.engine.seconds_to_read(held) or (held / (4 * speed) if speed else 0.0)
    if again < WORTH_SAVING and (again or not held or not path.exists()):
        _remove(path)  # it has an older state of this chat
        return
    with suppress(NotSupported):
        _write(chat, path, again, used - held, limit)


def _write(chat: Chat, path: Path, again: float, left: int, limit: int) -> None:
    """Write the file; NotSupported if the engine has no cache here. `again`: seconds that reading
    its tokens would take; `left`: tokens of the chat that are not in it."""
    task = chat.engine.save(path)
    chat.screen.progress("saving the KV cache; Ctrl-D leaves at once")
    with stopping(chat.engine.stop):
        try:
            while not task.done:
                if pressed(CTRL_D, 0.05):
                    chat.engine.stop()
            size = task.result()
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", "") or str(error) or "too little memory for a copy"
            chat.screen.notice(f"The KV cache is not saved: {why}.")
            return
    chat.screen.clear_progress()
    if size > limit:
        _remove(path)
        chat.screen.notice(
            f"The KV cache is not saved: it has {size >> 20:,} MiB, and kv_files allows "
            f"{limit >> 20:,}. Set a larger kv_files in config.toml."
        )
        return
    prune(path.parent, limit)
    if size:
        what = f"only {left:,} tokens" if left > REREAD else "nothing"
        chat.screen.notice(
            f"The KV cache is saved ({formatting.size(size)}): "
            f"resuming reads {what}, which saves {again:.0f} s."
        )


def prune(folder: Path, limit: int) -> None:
    """Remove the oldest cache files of a folder until all together take at most `limit` bytes. This
    includes what is left of files that were never completed."""
    files = []
    for path in folder.glob("*.kv*"):
        with suppress(OSError):
            stat = path.stat()
            files.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        _remove(path)
        total -= size


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
