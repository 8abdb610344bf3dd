"""The KV cache in a file: it is used only if every byte is right."""

import ctypes
import os
import random

import pytest

from lcp.chat.saved_cache import prune
from lcp.engine import kv_cache_file
from lcp.engine.context import State
from lcp.engine.kv_cache_file import Unusable, read, write

MADE_BY = {"model": "m", "kv_type": "f16"}


def a_state(size=3000, seed=0):
    blob = random.Random(seed).randbytes(size)
    return State([1, 2, 3], [0, 1, 2], (ctypes.c_uint8 * size).from_buffer_copy(blob))


def test_a_written_state_is_read_back(tmp_path):
    path = tmp_path / "chats" / "a.kv"
    size = write(path, a_state(), MADE_BY)
    state = read(path, MADE_BY)
    assert (state.tokens, state.positions) == ([1, 2, 3], [0, 1, 2])
    assert bytes(state.blob) == bytes(a_state().blob)
    assert path.stat().st_size == size
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["a.kv"]


def test_a_missing_file_is_no_state(tmp_path):
    assert read(tmp_path / "none.kv", MADE_BY) is None


@pytest.mark.parametrize("other", [{"model": "n"}, {"kv_type": "q8_0"}, {"new": "fact"}])
def test_a_state_of_another_model_or_build_is_refused_with_a_reason(tmp_path, other):
    path = tmp_path / "a.kv"
    write(path, a_state(), MADE_BY)
    assert read(path, MADE_BY | other) == Unusable(f"was made with another {next(iter(other))}")


def test_a_file_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    def no_memory(size):
        raise MemoryError

    write(tmp_path / "a.kv", a_state(), MADE_BY)
    monkeypatch.setattr(kv_cache_file, "bytearray", no_memory, raising=False)
    assert isinstance(read(tmp_path / "a.kv", MADE_BY), Unusable)


def test_truncated_and_altered_files_are_refused(tmp_path):
    path = tmp_path / "a.kv"
    write(path, a_state(), MADE_BY)
    whole = path.read_bytes()
    random_ = random.Random(1)
    for n in range(900):
        data = bytearray(whole)
        if n % 3 == 0:
            del data[random_.randrange(len(data)) :]
        elif n % 3 == 1:
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        else:
            begin = random_.randrange(len(data))
            data[begin : begin + 40] = random_.randbytes(random_.randrange(1, 80))
        assert bytes(data) != whole
        path.write_bytes(data)
        assert read(path, MADE_BY) == Unusable("is damaged"), n


def test_a_cancelled_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.kv"
    write(path, a_state(seed=1), MADE_BY)
    monkeypatch.setattr(kv_cache_file, "_PIECE", 100)
    asked = iter([False] * 10 + [True])
    assert write(path, a_state(seed=2), MADE_BY, lambda: next(asked)) == 0
    assert bytes(read(path, MADE_BY).blob) == bytes(a_state(seed=1).blob)
    assert [p.name for p in tmp_path.iterdir()] == ["a.kv"]


def test_a_failed_write_leaves_no_part_file(tmp_path):
    path = tmp_path / "a.kv"

    def fails():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write(path, a_state(), MADE_BY, fails)
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_caches_are_removed_if_all_together_are_too_large(tmp_path):
    for n in range(5):
        write(tmp_path / f"{n}.kv", a_state(1000), MADE_BY)
        os.utime(tmp_path / f"{n}.kv", (n, n))
    (tmp_path / "log.jsonl").write_text("stays")
    (tmp_path / "1.kv.99.part").write_bytes(b"of a process that was killed")
    os.utime(tmp_path / "1.kv.99.part", (0, 0))
    size = (tmp_path / "0.kv").stat().st_size
    prune(tmp_path, 3 * size)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2.kv", "3.kv", "4.kv", "log.jsonl"]
    prune(tmp_path, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]
