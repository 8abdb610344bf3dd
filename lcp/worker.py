"""The engine thread: functions in, items and results out.

Slow calls of llama.cpp run here, one after another, so that the main thread stays free for keys,
screen and signals: Python runs a Ctrl-C handler only between its own instructions, so never during
a decode of 30 seconds.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Emit = Callable[[Any], None]
_END = object()


class Task(Generic[Result]):
    """A function that the engine thread runs. Iterate it for what it emits, such as Progress."""

    def __init__(self, job: Callable[[Emit], Result]) -> None:
        self._job = job
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._result: Result | None = None
        self.error: BaseException | None = None  # why it failed
        self.done = False  # it has ended
        self._lock = threading.Lock()
        self._to_tell: list[Callable[[], None]] = []

    def run(self) -> None:
        """Run the function; on the engine thread."""
        try:
            self._result = self._job(self._items.put)
        except BaseException as error:
            self.error = error
        with self._lock:
            self.done = True
        self._items.put(_END)
        for tell in self._to_tell:
            tell()

    def call_when_done(self, tell: Callable[[], None]) -> None:
        """Call `tell` on the engine thread when the task ends, or at once if it has ended."""
        with self._lock:
            if not self.done:
                self._to_tell.append(tell)
                return
        tell()

    def __iter__(self) -> Iterator[Any]:
        """Yield what the function emits until it ends, and raise what it raised."""
        while (item := self._next()) is not _END:
            yield item
        self._items.put(_END)  # it may be iterated again
        if self.error:
            raise self.error

    def result(self) -> Result:
        """Wait for the end. Returns what the function returned."""
        for _ in self:
            pass
        return self._result  # type: ignore[return-value]

    def _next(self) -> Any:
        while True:
            try:
                return self._items.get(timeout=0.05)  # without a timeout, Windows blocks Ctrl-C
            except queue.Empty:
                pass


class Worker:
    """A thread that runs tasks one after another until it is closed.

    Without a task, it calls `idle` for a step of less urgent work until that returns False. Then it
    sleeps until a task or a nudge comes.
    """

    def __init__(self, idle: Callable[[], bool] = lambda: False) -> None:
        self._idle = idle
        self._tasks: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        # A daemon, because Python would wait for it at exit and hang; Engine.close joins it.
        self._thread = threading.Thread(target=self._run, name="lcp engine", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Emit], Result]) -> Task[Result]:
        """Queue a function. Its argument is a function that emits items."""
        if not self._thread.is_alive():
            raise RuntimeError("the engine thread has ended")
        task = Task(job)
        self._tasks.put(task)
        return task

    def nudge(self) -> None:
        """Wake the thread: there may be idle work again."""
        self._tasks.put(_NUDGE)

    def close(self) -> None:
        """Run the queued tasks, then end the thread."""
        self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = False
        while True:
            try:
                task = self._tasks.get(block=not more)
            except queue.Empty:
                more = self._idle()
                continue
            if task is None:
                return
            task.run()
            more = True


_NUDGE: Task[None] = Task(lambda emit: None)
