"""What is measured to be fastest, when, and what uses the result."""

import ctypes
import json
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lcp.chat import memory_fit
from lcp.chat.memory_fit import choose
from lcp.cli import free_memory
from lcp.engine import context as context_module
from lcp.engine import kv_cache_file, speed_test
from lcp.engine.context import State, Stopped
from lcp.engine.engine import LlamaEngine
from lcp.engine.llama_library import StopByte, library, version
from lcp.engine.loading import LoadPlan, with_flash_attention
from lcp.engine.model import Model
from lcp.engine.speed_test import SpeedTest, TwoSequences, clearly_faster, fill
from lcp.engine_interface import PromptMessage, Request
from lcp.errors import NotEnoughMemory
from lcp.health_checks import _speeds as findings
from lcp.machine import physical_cores
from lcp.modelfile.llamacpp_answers import stored_speed
from lcp.modelfile.model_files import local
from lcp.settings import Sampling, Settings

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc)
SPEEDS = {
    "model": "m.gguf",
    "flash_attn": "on",
    "threads": 1,
    "times": [
        {"flash_attn": "off", "threads": 2, "seconds": 0.05},
        {"flash_attn": "on", "threads": 2, "seconds": 0.025},
    ],
}


@pytest.fixture
def begin(tiny):
    """Makes a loaded engine; `kept` gets its measurements."""
    engines = []

    def make(kept=None, saved=None, kind="dense", measured=None, **settings):
        keep = kept.append if kept is not None else None
        plan = LoadPlan(512, 0, threads=measured, keep_speeds=keep)
        engine = LlamaEngine(
            tiny(kind, quant="Q8_0"), Settings(**settings), now=NOW, plan=lambda: plan
        )
        engines.append(engine)
        engine.load(saved=saved).result()
        return engine

    yield make
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    ("pairs", "chosen"),
    [
        ([(10, 9)] * 8, True),
        ([(10, 9.7)] * 8, False),  # too little
        ([(10, 5)] * 5 + [(10, 12)] * 3, False),  # too often the other way round
        ([(10, 11)] * 8, False),
    ],
)
def test_another_choice_must_be_clearly_faster(pairs, chosen):
    assert clearly_faster(pairs) is chosen


@pytest.mark.parametrize("kind", ["dense", "swa"])
@pytest.mark.parametrize("flash_attn", ["on", "off"])
def test_a_context_is_filled_without_evaluating_its_tokens(tiny, kind, flash_attn):
    model = Model.load(tiny(kind, quant="Q8_0"))
    context = TwoSequences(model, 512, StopByte(), threads=1, flash_attn=flash_attn, swa_full=True)
    fill(context, 256, 1)
    memory = library().llama_get_memory(context.handle)
    assert library().llama_memory_seq_pos_min(memory, 0) == 0
    assert library().llama_memory_seq_pos_max(memory, 0) == 255
    context.append(1)
    assert library().llama_memory_seq_pos_max(memory, 0) == 256
    context.close()
    model.close()


def test_a_measurement_times_all_choices_and_selects_one(begin, monkeypatch):
    monkeypatch.setattr(speed_test, "QUIET", 0)
    kept = []
    speeds = begin(kept).speeds().result()
    assert [t.flash_attn for t in speeds.times[:2]] == ["off", "on"]
    assert all(t.seconds > 0 for t in speeds.times)
    assert speeds.flash_attn in ("on", "off") and 1 <= speeds.threads <= physical_cores()
    assert kept == [speeds.as_dict()]


def test_nothing_is_chosen_while_other_programs_use_the_cores(begin, monkeypatch):
    monkeypatch.setattr(speed_test, "QUIET", 2)
    kept = []
    speeds = begin(kept).speeds().result()
    assert speeds.busy and not kept
    assert (speeds.flash_attn, speeds.threads) == ("off", physical_cores())


def test_memory_that_is_not_free_is_not_taken(begin):
    with pytest.raises(NotEnoughMemory):
        begin().speeds(free=1000).result()


def test_the_speed_is_measured_once_in_idle_time(begin, monkeypatch):
    monkeypatch.setattr(speed_test, "QUIET", 0)
    done = threading.Event()

    class Kept(list):
        def append(self, speeds):
            super().append(speeds)
            done.set()

    kept = Kept()
    engine = begin(kept)
    engine.measure_speed(lambda: None)
    assert done.wait(60)
    engine.measure_speed(lambda: None)
    engine.run_soon(lambda: None).result()
    assert len(kept) == 1


@pytest.mark.parametrize(("measured", "tries"), [(None, speed_test.TRIES), (1, 0)])
def test_a_known_speed_is_not_measured_again(begin, measured, tries):
    assert begin([], measured=measured)._speed_test._tries == tries


def test_on_a_busy_computer_the_measurement_is_tried_three_times():
    asked = []

    def steps(free):
        asked.append(free)
        yield
        return speed_test.Speeds("off", 2, 64, (), busy=True)

    test = SpeedTest()
    test.begin(steps, lambda speeds: None)
    for answer in range(5):
        test.ask(lambda answer=answer: answer)
        while test.step():
            pass
    assert asked == [0, 1, 2]


def test_a_key_a_question_and_ctrl_c_end_the_measurement(begin, monkeypatch):
    monkeypatch.setattr(speed_test, "ROUNDS", 1 << 30)  # otherwise, it would end
    monkeypatch.setattr(speed_test, "LIMIT_S", 1e9)

    def answer(engine):
        reply = engine.reply(Request([PromptMessage("user", "Hi")], Sampling(temp=0), max_tokens=8))
        for _ in reply:
            pass
        return reply.text

    engine = begin([])
    alone = answer(engine)
    for disturb in (
        lambda: answer(engine) == alone,
        lambda: [engine.run_soon(lambda: None).result() for _ in range(3)],
        lambda: engine.probs([], PromptMessage("assistant", "x")),
        lambda: engine.stop() is None,
    ):
        engine.measure_speed(lambda: None)
        while engine._speed_test._steps is None:
            time.sleep(0.001)
        assert disturb()
        ended = time.monotonic() + 5
        while engine._speed_test._steps and time.monotonic() < ended:
            time.sleep(0.001)
        assert engine._speed_test._steps is engine._speed_test._asked is None
    assert answer(engine) == alone


@pytest.mark.parametrize("error", [NotEnoughMemory("too little"), OSError(), MemoryError()])
def test_a_measurement_that_fails_is_not_tried_again(error):
    asked = []

    def free():
        asked.append(error)
        raise error

    test = SpeedTest()
    test.begin(lambda free: iter(()), lambda speeds: True)
    for _ in range(2):
        test.ask(free)
        assert not test.step()
    assert len(asked) == 1


def test_a_stopped_step_frees_its_contexts():
    freed = []

    def steps(free):
        try:
            yield
            raise Stopped
        finally:
            freed.append(free)

    test = SpeedTest()
    test.ask(lambda: 1)  # no model yet
    assert not test.step()
    test.begin(steps, freed.append)
    test.ask(lambda: 5)
    assert test.step()
    test.stop()
    assert not test.step()
    assert freed == [5]
    test.ask(lambda: 6)
    assert test.step() and not test.step()
    assert freed == [5, 6]


@pytest.mark.slow
def test_the_next_start_uses_the_result_unless_a_flag_is_given(tiny, tmp_path):
    path = tiny("dense")

    def fit(**settings):
        return choose(path, Settings(**settings), tmp_path, gpu=False, name="tiny:8b")

    assert (fit().flash_attn, fit().threads) == ("auto", None)
    measured = {name: fact for name, fact in SPEEDS.items() if name != "model"}
    fit().keep_speeds(measured)
    assert (fit().flash_attn, fit().threads) == ("on", 1)
    for chosen in ({"flash_attn": "off"}, {"kv_type": "q8_0"}):
        assert (fit(**chosen).flash_attn, fit(**chosen).threads) == ("auto", None)
    (finding,) = findings(tmp_path)
    assert finding.value.startswith("tiny:8b: ")
    path.touch()  # it counts as another file
    assert fit().flash_attn == "auto"
    fit().keep_speeds(measured | {"threads": 2})
    (finding,) = findings(tmp_path)
    assert "2 threads" in finding.value


@pytest.mark.parametrize(("flag", "used"), [(None, 3), (2, 2)])
def test_answers_use_the_measured_threads_also_after_growing(begin, monkeypatch, flag, used):
    monkeypatch.setattr(context_module, "START", 256)
    engine = begin(measured=3, threads=flag)
    context, c = engine._loaded.context, library()
    for n in (10, 400):
        list(engine.reply(Request([PromptMessage("user", "a" * n)], Sampling(), max_tokens=2)))
        assert c.llama_n_threads(context.handle) == used
        assert c.llama_n_threads_batch(context.handle) == (flag or physical_cores())
    assert c.llama_n_ctx(context.handle) == 512


@pytest.mark.parametrize(("flag", "used"), [("auto", "on"), ("off", "off")])
def test_a_resumed_chat_keeps_the_flash_attention_of_its_cache(begin, tmp_path, flag, used):
    file = tmp_path / "chat.kv"
    first = begin(flash_attn="on")
    first.look_ahead([PromptMessage("user", "Hello.")], "", None)
    while not first.cached:
        first.run_soon(lambda: None).result()
    assert first.save(file).result()
    second = begin(saved=file, flash_attn=flag)
    assert second.made_with["flash_attn"] == used
    assert bool(second.restore(file).result()) is (flag == "off")


@pytest.mark.parametrize(("made_by", "used"), [("", "off"), ("older", "on")])
def test_an_unusable_cache_does_not_select_flash_attention(tmp_path, made_by, used):
    file = tmp_path / "chat.kv"
    made_with = {"llama.cpp": made_by or version(), "kv_type": "f16", "flash_attn": "off"}
    kv_cache_file.write(file, State([], [], (ctypes.c_uint8 * 0)()), made_with)
    fit = LoadPlan(512, 0, flash_attn="on")
    assert with_flash_attention(Settings(), fit, file).flash_attn == used


def test_the_measurement_does_not_change_the_sizes(tiny, tmp_path, monkeypatch):
    """A resumed chat keeps the flash attention of its saved cache."""
    sized = []
    sizes = memory_fit._sizes
    monkeypatch.setattr(
        memory_fit, "_sizes", lambda m, s, *rest: sized.append(s.flash_attn) or sizes(m, s, *rest)
    )
    fit = choose(tiny("dense"), Settings(), tmp_path, gpu=False)
    fit.keep_speeds({"flash_attn": "on", "threads": 1})
    assert choose(tiny("dense"), Settings(), tmp_path, gpu=False).flash_attn == "on"
    assert sized == ["auto", "auto"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recurrent", "hybrid"])
def test_a_model_that_cannot_be_measured_suggests_flags(home, tiny, lcp_main, capsys, kind):
    assert lcp_main("bench", str(tiny(kind))) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "--flash-attn on|off --threads N" in said


def test_a_model_on_a_server_is_not_measured(home, lcp_main, capsys):
    assert lcp_main("bench", "http://127.0.0.1:9#m") == 1
    assert "lcp list" in capsys.readouterr().err


def test_a_stop_before_a_cache_is_written_cancels_it(begin, tmp_path):
    engine, go = begin(), threading.Event()
    for _ in engine.reply(Request([PromptMessage("user", "Hi")], Sampling(), max_tokens=2)):
        pass
    engine.stop()  # of an earlier task
    assert engine.save(tmp_path / "chat.kv").result()
    engine.run_soon(go.wait)
    saving = engine.save(tmp_path / "other.kv")
    engine.stop()
    go.set()
    assert saving.result() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"lcpkv",
        kv_cache_file.MAGIC + b"\xff" * 40,
        kv_cache_file.MAGIC + (2).to_bytes(8, "little") + b"[]",
        kv_cache_file.MAGIC + (60_000).to_bytes(8, "little") + b"[" * 60_000,
    ],
)
def test_a_damaged_cache_does_not_select_flash_attention(tmp_path, data):
    file = tmp_path / "chat.kv"
    file.write_bytes(data)
    assert kv_cache_file.made_with(file) == {}
    assert kv_cache_file.made_with(tmp_path / "none") == {}


def damage(folder):
    """Each file has other numbers now: another version wrote it, or the disk is faulty."""
    for file in filter(Path.is_file, folder.iterdir()):
        file.write_text(file.read_text().replace('"', '"x', 1))


@pytest.mark.slow
def test_damaged_answers_are_asked_again(tiny, tmp_path):
    path = tiny("dense")
    first = choose(path, Settings(), tmp_path, gpu=False)
    assert first.keep_speeds({"flash_attn": "on", "threads": 1})
    damage(tmp_path)
    damage(tmp_path / "speed")
    again = choose(path, Settings(), tmp_path, gpu=False)
    assert (again, again.flash_attn, again.threads) == (first, "auto", None)


def test_lcp_doctor_shows_the_measurement(tiny, tmp_path):
    assert not list(findings(tmp_path))
    assert not list(findings(tmp_path / ("x" * 300)))  # an invalid folder
    assert stored_speed(local(tiny("swa")), tmp_path, 2).write(SPEEDS)
    damage(tmp_path / "speed")
    assert stored_speed(local(tiny("dense")), tmp_path, 2).write(SPEEDS)
    (finding,) = findings(tmp_path)
    assert "m.gguf: flash attention on, 1 thread" in finding.value
    assert "(25 ms a token with it, 50 ms without)" in finding.value


@pytest.mark.slow
def test_lcp_bench_measures_now(home, tiny, lcp_main, capsys):
    assert lcp_main("bench", str(tiny("dense")), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flash_attn"] in ("on", "off")
    assert {"flash_attn", "threads", "seconds"} == found["times"][0].keys()


@pytest.mark.slow
@pytest.mark.parametrize("writable", [True, False])
def test_lcp_bench_says_whether_later_chats_use_the_result(
    home, tiny, lcp_main, capsys, monkeypatch, writable
):
    monkeypatch.setattr(speed_test, "QUIET", 0)
    folder = free_memory.figures_folder()
    folder.mkdir(parents=True)
    if not writable:
        (folder / "speed").write_text("a file in its place")
    assert lcp_main("bench", str(tiny("dense"))) == 0
    said = "".join(capsys.readouterr().out.split())  # the path is longer than a row
    assert (str(folder) in said) is not writable
    assert lcp_main("bench", str(tiny("dense")), "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept"] is writable
