"""The one engine thread: jobs in, items and results out.

All calls of llama.cpp that take time run here, in the order they were given, so that the main
thread stays free for keys, screen and signals: Python runs a Ctrl-C handler only between its own
instructions, never inside a decode of 30 seconds.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Emit = Callable[[Any], None]
_END = object()


class Job(Generic[Result]):
    """A function on its way to the engine thread: iterate for what it emits, ask for its result."""

    def __init__(self, job: Callable[[Emit], Result]) -> None:
        self._job = job
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._result: Result | None = None
        self.error: BaseException | None = None  # why it failed
        self.done = False  # it has ended
        self._lock = threading.Lock()
        self._to_tell: list[Callable[[], None]] = []

    def run(self) -> None:
        """Do the job; on the engine thread."""
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
        """Call `tell` at the end, on the engine thread, or at once if that is over."""
        with self._lock:
            if not self.done:
                self._to_tell.append(tell)
                return
        tell()

    def __iter__(self) -> Iterator[Any]:
        """What the job emits, until it has ended; raises what it raised."""
        while (item := self._next()) is not _END:
            yield item
        self._items.put(_END)  # a task may be iterated, or waited for, again
        if self.error:
            raise self.error

    def result(self) -> Result:
        """What the job returned, once it has ended."""
        for _ in self:
            pass
        return self._result  # type: ignore[return-value]

    def _next(self) -> Any:
        while True:
            try:
                return self._items.get(timeout=0.05)  # a get for ever hides Ctrl-C on Windows
            except queue.Empty:
                pass


class Worker:
    """A thread that runs tasks one after another until it is closed.

    When there is none it calls `idle` for steps of less urgent work, as long as that answers
    True; then it sleeps until a job or a nudge comes.
    """

    def __init__(self, idle: Callable[[], bool] = lambda: False) -> None:
        self._idle = idle
        self._tasks: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        # Not waited for at exit by Python itself, which would hang; Engine.close joins it.
        self._thread = threading.Thread(target=self._run, name="lcp engine", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Emit], Result]) -> Job[Result]:
        """Queue a job; it is called with a function that emits items to whoever iterates."""
        if not self._thread.is_alive():
            raise RuntimeError("the engine thread has ended")
        task = Job(job)
        self._tasks.put(task)
        return task

    def nudge(self) -> None:
        """There may be idle work again."""
        self._tasks.put(_NUDGE)

    def close(self) -> None:
        """Wait for what is queued, then end the thread."""
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


_NUDGE: Job[None] = Job(lambda emit: None)
