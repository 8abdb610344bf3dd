"""The engine thread: jobs in, items and results out."""

import threading
import time

import pytest

from lcp.worker import Worker


@pytest.fixture
def worker():
    one = Worker()
    yield one
    one.close()


def count(n):
    def job(emit):
        for i in range(n):
            emit(i)
        return n

    return job


def test_iterating_a_task_gives_the_items_of_its_job(worker):
    assert list(worker.submit(count(3))) == [0, 1, 2]


def test_the_result_is_the_return_value_of_the_job(worker):
    assert worker.submit(count(3)).result() == 3


def test_a_task_can_be_iterated_before_or_after_waiting(worker):
    task = worker.submit(count(2))
    assert (list(task), task.result(), list(task), task.result()) == ([0, 1], 2, [], 2)


def test_items_arrive_while_the_job_runs(worker):
    go_on = threading.Event()

    def job(emit):
        emit("first")
        go_on.wait(10)
        emit("second")

    items = iter(worker.submit(job))
    assert next(items) == "first"
    go_on.set()
    assert list(items) == ["second"]


def test_jobs_run_one_after_another_on_one_other_thread(worker):
    seen = []

    def job(n):
        def run(emit):
            time.sleep(0.01 * (3 - n))
            seen.append((n, threading.get_ident()))

        return run

    for task in [worker.submit(job(n)) for n in range(3)]:
        task.result()
    assert [n for n, _ in seen] == [0, 1, 2]
    (thread,) = {thread for _, thread in seen}
    assert thread != threading.get_ident()


@pytest.mark.parametrize("error", [ValueError("wrong"), MemoryError(), SystemExit(3)], ids=repr)
def test_an_error_of_a_job_is_raised_by_iterating_and_the_next_job_runs(worker, error):
    def job(emit):
        emit("before")
        raise error

    task, seen = worker.submit(job), []
    with pytest.raises(type(error)) as raised:
        for item in task:
            seen.append(item)
    assert seen == ["before"] and raised.value is error
    with pytest.raises(type(error)):
        task.result()
    assert worker.submit(count(1)).result() == 1


def test_an_exception_in_the_loop_that_iterates_leaves_the_worker_running(worker):
    with pytest.raises(KeyboardInterrupt):
        for _ in worker.submit(count(5)):
            raise KeyboardInterrupt
    assert worker.submit(count(1)).result() == 1


def test_closing_waits_for_queued_jobs():
    worker, done = Worker(), []
    for n in range(5):
        worker.submit(lambda emit, n=n: (time.sleep(0.01), done.append(n)))
    worker.close()
    assert done == [0, 1, 2, 3, 4]


def test_a_closed_worker_has_no_thread():
    before = set(threading.enumerate())
    worker = Worker()
    (thread,) = set(threading.enumerate()) - before
    worker.close()
    assert not thread.is_alive()
