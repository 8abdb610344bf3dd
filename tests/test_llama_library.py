"""Loading llama.cpp: its log, the stop byte, its pitfalls, cores, and the probe."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcp.engine import cpu_check
from lcp.engine.llama_library import (
    NativeLog,
    StopByte,
    abort_callback,
    extra_bufts,
    library,
    log,
    supports_gpu,
)
from lcp.engine.model import Model
from lcp.errors import NativeError
from lcp.machine import physical_cores

REPOSITORY = Path(__file__).parents[1]


def python(code, **environment):
    """Run it in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
    )


# the log


@pytest.fixture
def kept():
    return NativeLog()


def test_log_lines_in_pieces_are_joined(kept):
    kept.write(2, b"loading")
    kept.write(5, b" ...")
    kept.write(5, b" done\nnext")
    assert list(kept.lines) == ["loading ... done"]
    kept.write(5, b"\n")
    assert list(kept.lines) == ["loading ... done", "next"]


def test_debug_messages_are_dropped(kept):
    kept.write(1, b"noise\n")
    assert not kept.lines


def test_the_newest_line_with_one_of_the_parts_is_found(kept):
    kept.write(2, b"first error\nsecond failed\nthird\n")
    assert kept.find("error", "failed") == "second failed"
    assert kept.find("first") == "first error"
    assert kept.find("nothing") == ""


def test_the_log_is_bounded(kept):
    for n in range(1000):
        kept.write(2, b"%d\n" % n)
    assert list(kept.lines) == [str(n) for n in range(600, 1000)]


def test_log_bytes_that_are_not_text_do_no_harm(kept):
    kept.write(2, b"\xff\n")
    assert list(kept.lines) == ["\ufffd"]


def test_the_log_is_echoed_only_on_request(kept):
    kept.write(2, b"silent\n")
    said = []
    kept.echo = said.append
    kept.write(2, b"said\nand\n")
    assert said == ["said", "and"]


def test_the_log_of_loading_is_kept_and_not_printed(tiny, capfd):
    Model.load(tiny("dense")).close()
    assert log.find("loading model tensors")
    assert capfd.readouterr() == ("", "")


# starting


@pytest.mark.slow
def test_the_environment_is_prepared_without_overriding():
    code = (
        "import os\nfrom lcp.engine.llama_library import library\nlibrary()\n"
        "print(os.environ['GOMP_SPINCOUNT'], os.environ['GGML_NO_BACKTRACE'])"
    )
    done = python(code)
    assert (done.stdout, done.stderr) == ("1000 1\n", "")
    assert python(code, GOMP_SPINCOUNT="7").stdout == "7 1\n"


@pytest.mark.slow
def test_importing_does_not_load_the_library():
    code = "import sys\nimport lcp.engine.engine\nprint('llama_cpp' in sys.modules)"
    assert python(code).stdout == "False\n"


def test_a_missing_library_is_an_error(tmp_path):
    code = (
        "from lcp.engine.llama_library import library\nfrom lcp.errors import NativeError\n"
        "try: library()\nexcept NativeError as error: print(error)"
    )
    said = python(code, LLAMA_CPP_LIB_PATH=str(tmp_path)).stdout
    assert said.startswith("llama-cpp-python cannot be loaded here: ")
    assert said.endswith("pip install --force-reinstall --no-cache-dir llama-cpp-python\n")
    assert said.count("\n") == 1


# the stop byte


def test_the_byte_is_set_and_cleared():
    stop = StopByte()
    assert not stop.is_set()
    stop.set()
    assert stop.is_set()
    stop.clear()
    assert not stop.is_set()


def test_the_abort_callback_reads_the_byte():
    stop, other = StopByte(), StopByte()
    aborts = abort_callback()
    assert aborts(stop.address) is False
    stop.set()
    assert aborts(stop.address) is True
    assert aborts(other.address) is False
    stop.clear()
    assert aborts(stop.address) is False


def test_the_abort_callback_is_a_c_function():
    strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
    assert ctypes.cast(abort_callback(), ctypes.c_void_p).value == strlen


# the AMX trap


def test_extra_buffers_are_used_except_on_a_cpu_with_amx(monkeypatch):
    monkeypatch.delenv("LCP_EXTRA_BUFTS", raising=False)
    assert extra_bufts() == (b"AMX_INT8 = 1" not in library().llama_print_system_info())


@pytest.mark.parametrize("value, use", [("0", False), ("1", True)])
def test_the_environment_overrides_extra_buffers(monkeypatch, value, use):
    monkeypatch.setenv("LCP_EXTRA_BUFTS", value)
    assert extra_bufts() is use


def test_without_extra_buffers_no_weights_are_repacked(monkeypatch, tiny):
    """Checked in llama.cpp's log of its buffers."""
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "0")
    Model.load(tiny("dense", quant="Q4_0")).close()
    assert log.find("CPU_Mapped model buffer size")
    assert not log.find("CPU_REPACK model buffer size", "AMX model buffer size")


def test_gpu_support_is_known():
    assert supports_gpu() in (True, False)


# cores


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """A Linux computer in a folder; call it with files and their text."""

    def made(cpus, files):
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cpus), raising=False)
        for cpu, siblings in cpus.items():
            files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = siblings
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return physical_cores(tmp_path)

    return made


FOUR = {cpu: str(cpu) for cpu in range(4)}
GROUPS = "sys/fs/cgroup"


def test_hyper_threads_count_once(computer):
    assert computer({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, {}) == 2


def test_only_cpus_this_process_may_use_count(computer):
    assert computer({2: "2,6", 3: "3,7", 6: "2,6"}, {}) == 2


def test_without_a_topology_every_cpu_is_a_core(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert physical_cores(tmp_path) == 3


@pytest.mark.parametrize(
    "quota, cores",
    [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1)],
)
def test_a_cgroup_quota_limits_the_cores(computer, quota, cores):
    files = {"proc/self/cgroup": "0::/box", f"{GROUPS}/box/cpu.max": quota}
    assert computer(FOUR, files) == cores


def test_the_quota_of_a_parent_cgroup_counts(computer):
    files = {
        "proc/self/cgroup": "0::/a/b/c",
        f"{GROUPS}/a/b/c/cpu.max": "max 100000",
        f"{GROUPS}/a/cpu.max": "300000 100000",
    }
    assert computer(FOUR, files) == 3


def test_in_a_container_the_root_of_the_cgroup_counts(computer):
    files = {"proc/self/cgroup": "0::/not/there", f"{GROUPS}/cpu.max": "100000 100000"}
    assert computer(FOUR, files) == 1


@pytest.mark.parametrize("quota, cores", [("-1", 4), ("250000", 3)])
def test_a_cgroup_v1_quota_limits_the_cores(computer, quota, cores):
    files = {
        "proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/",
        f"{GROUPS}/cpu/box/cpu.cfs_quota_us": quota,
        f"{GROUPS}/cpu/box/cpu.cfs_period_us": "100000",
    }
    assert computer(FOUR, files) == cores


def test_on_a_mac_the_performance_cores_count(tmp_path, monkeypatch):
    sysctl = tmp_path / "sysctl"
    sysctl.write_text('#!/bin/sh\n[ "$2" = hw.perflevel0.physicalcpu ] && echo 6\n')
    sysctl.chmod(0o755)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert physical_cores() == 6


def test_this_computer_has_at_least_one_core():
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


# the probe


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A function that writes a llama_cpp package that the child imports instead of the real one."""

    def install(code):
        package = tmp_path / "broken" / "llama_cpp"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "llama_cpp.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(REPOSITORY)]))

    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return install


def refusal():
    with pytest.raises(NativeError) as raised:
        cpu_check.run()
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert "pip install --force-reinstall --no-cache-dir" in sentence.rpartition(": ")[2]
    return sentence


@pytest.mark.slow
def test_the_child_computes_and_answers_in_one_line(broken):
    answer = cpu_check.run()
    facts = json.loads(answer)
    assert facts["ok"] is True
    assert "CPU" in facts["system_info"]
    assert facts["gpu"] is supports_gpu()


@pytest.mark.slow
@pytest.mark.parametrize(
    "signal, reason",
    [
        ("SIGILL", "(SIGILL: it was built for another CPU)"),
        ("SIGSEGV", "(SIGSEGV: its computation crashed)"),
        ("SIGABRT", "(SIGABRT: its computation crashed)"),
    ],
)
def test_a_child_that_crashes_is_an_error(broken, signal, reason):
    broken(f"import os, signal\nos.kill(os.getpid(), signal.{signal})")
    assert f"llama.cpp cannot run on this CPU {reason}." in refusal()


def test_a_child_that_cannot_load_the_library_says_why(broken):
    broken("raise ImportError('libllama.so: undefined symbol')")
    assert refusal().startswith(
        "llama-cpp-python cannot be loaded here: libllama.so: undefined symbol."
    )


def test_a_library_folder_without_libraries_is_an_error(broken, monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    assert refusal().startswith("llama-cpp-python cannot be loaded here: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code, reason",
    [
        ("x = 1", "(AttributeError: "),  # another version, without the functions
        ("print('hello'); import os; os._exit(0)", "(exit code 0)"),
        ("print('[]'); import sys, os; sys.stdout.flush(); os._exit(0)", "(exit code 0)"),
        ("import sys; sys.exit(3)", "(exit code 3)"),
        ("import sys; sys.exit('no\\nluck')", "(luck)"),
    ],
)
def test_unexpected_output_of_the_child_is_an_error(broken, code, reason):
    broken(code)
    assert f"llama.cpp does not work here {reason}" in refusal()


def test_a_good_answer_is_cached(broken, tmp_path):
    cache = tmp_path / "cache"
    cpu_check.check_once(cache)
    (remembered,) = cache.iterdir()
    assert json.loads(remembered.read_text())["ok"] is True
    # even if the child would crash now, because it is not started
    broken_child = tmp_path / "python"
    broken_child.mkdir()
    (broken_child / "sitecustomize.py").write_text("import os; os._exit(9)")
    os.environ["PYTHONPATH"] = str(broken_child)
    cpu_check.check_once(cache)
    assert list(cache.iterdir()) == [remembered]


@pytest.mark.slow
def test_a_bad_answer_is_not_cached(broken, tmp_path):
    broken("raise ImportError('no')")
    for _ in range(2):
        with pytest.raises(NativeError):
            cpu_check.check_once(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_an_unwritable_cache_does_no_harm(broken, tmp_path):
    (tmp_path / "file").write_text("")
    cpu_check.check_once(tmp_path / "file" / "cache")


@pytest.mark.slow
def test_other_buffer_types_are_checked_separately(broken, tmp_path, monkeypatch):
    cpu_check.check_once(tmp_path)
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "0")
    cpu_check.check_once(tmp_path)
    assert len(list(tmp_path.glob("probe-*.json"))) == 2
