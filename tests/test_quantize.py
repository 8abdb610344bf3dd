"""`lcp quantize`: other quants of real files, errors, and leftover files."""

import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import gguf
import numpy as np
import pytest
from terminal import terminal_environment

from lcp.cli.quantize import take_name, target_name
from lcp.errors import LcpError
from lcp.modelfile.facts import facts
from lcp.modelfile.model_files import local
from lcp.modelfile.quants import file_types


@pytest.fixture
def quantize(lcp_main, capsys, tmp_path, monkeypatch):
    """A function: the words of a command, run in an empty folder, to its output, or to its error
    if it is refused."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*words, code=0):
        got = lcp_main("quantize", *map(str, words))
        out, err = capsys.readouterr()
        assert got == code, err
        return (out.strip(), err) if code == 0 else err

    run.folder = folder
    return run


def weights(path):
    found = {}
    for t in gguf.GGUFReader(path).tensors:
        raw = t.data.view(np.uint16).astype(np.uint32) << 16 if t.tensor_type == 30 else t.data
        found[t.name] = raw.view(np.float32) if t.tensor_type == 30 else gguf.dequantize(
            raw, t.tensor_type
        )  # fmt: skip
    return found


@pytest.mark.slow
def test_the_new_file_has_the_weights_in_the_new_quant(quantize, tiny):
    source = tiny()
    before = source.read_bytes()
    path, said = quantize(source, "q8_0")
    assert path == str(quantize.folder / f"{source.stem}.Q8_0.gguf")
    assert facts(local(quantize.folder / path)).quant == "Q8_0"
    assert "errors" not in said  # F32 has no errors to add up
    old, new = weights(source), weights(path)
    assert set(new) == set(old)
    for name, values in old.items():
        assert np.abs(new[name] - values).max() <= np.abs(values).max() / 127
    assert source.read_bytes() == before
    assert [p.name for p in quantize.folder.iterdir()] == [f"{source.stem}.Q8_0.gguf"]


@pytest.mark.slow
def test_the_size_is_shown_before_the_work(quantize, tiny):
    _, said = quantize(tiny(), "F16", "--dry-run")
    assert not list(quantize.folder.iterdir())
    path, again = quantize(tiny(), "F16")
    assert again.startswith(said.strip()[:60])
    told = float(re.search(r"about ([\d.]+) kB", said)[1])
    assert told * 1000 == pytest.approx(Path(path).stat().st_size, rel=0.05)


@pytest.mark.slow
def test_a_quant_of_a_quant_is_announced_and_named(quantize, tiny):
    path, said = quantize(tiny(quant="Q8_0", facts={"general.file_type": 7}), "Q4_0")
    assert path.endswith(".Q4_0-from-Q8_0.gguf")
    assert "Q8_0" in said and "add up" in said


@pytest.mark.parametrize(
    "name, made_from, quant, right",
    [
        ("a-Q4_K_M.gguf", "Q4_K_M", "Q8_0", "a.Q8_0-from-Q4_K_M.gguf"),
        ("a.f16.gguf", "F16", "Q4_0", "a.Q4_0.gguf"),
        ("a-F16-00001-of-00003.gguf", "F16", "Q4_0", "a.Q4_0.gguf"),
        ("a.gguf", "", "Q4_0", "a.Q4_0.gguf"),
    ],
)
def test_names_of_the_new_file(name, made_from, quant, right):
    assert target_name(name, made_from, quant) == right


@pytest.mark.slow
def test_no_file_is_overwritten(quantize, tiny):
    quantize(tiny(), "Q8_0", "-o", "mine.gguf")
    before = (quantize.folder / "mine.gguf").read_bytes()
    assert "-o" in quantize(tiny(), "Q4_0", "-o", "mine.gguf", code=2)
    assert (quantize.folder / "mine.gguf").read_bytes() == before
    assert "exists" in quantize(tiny(), "Q4_0", "-o", tiny(), code=2)


@pytest.mark.parametrize("links", [True, False])
def test_a_file_created_in_the_meantime_is_kept(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    part, target = tmp_path / "part", tmp_path / "new.gguf"
    part.write_text("complete")
    take_name(part, target)
    assert target.read_text() == "complete"
    part.unlink(missing_ok=True)  # the same file, if there are links
    target.write_text("another's")
    part.write_text("complete")
    with pytest.raises(LcpError, match="-o"):
        take_name(part, target)
    assert target.read_text() == "another's"


def test_the_command_to_type_next_is_quoted(quantize, tiny):
    assert "lcp chat 'my model.gguf'" in quantize(tiny(), "Q8_0", "-o", "my model.gguf")[1]


def test_a_file_that_is_not_for_a_chat_has_no_advice_to_chat(quantize, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "mmproj-x.gguf", "clip")
    writer.add_type("mmproj")
    writer.add_tensor("x.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path, said = quantize(tmp_path / "mmproj-x.gguf", "Q8_0")
    assert Path(path).is_file() and "lcp chat" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "quant, code, said",
    [("Q9_9", 2, "Q4_K_M"), ("Q4_1", 2, "already"), ("IQ2_XXS", 1, "importance matrix"),
     ("NVFP4", 1, "39")],
)  # fmt: skip
def test_a_refused_quant_leaves_no_file(quantize, smollm2, quant, code, said):
    assert said in quantize(smollm2, quant, code=code)
    assert not list(quantize.folder.iterdir())


@pytest.mark.slow
def test_a_failure_in_the_middle_leaves_no_file(quantize, tiny, tmp_path):
    """llama.cpp starts to write the file, finds a number that is not finite, and stops."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny().read_bytes())
    tensor = next(t for t in gguf.GGUFReader(broken).tensors if t.name == "blk.1.ffn_up.weight")
    with broken.open("r+b") as file:
        file.seek(tensor.data_offset)
        file.write(b"\xff" * 128)
    assert "invalid data" in quantize(broken, "Q4_0", code=1)
    assert not list(quantize.folder.iterdir())


@pytest.mark.slow
def test_an_impossible_file_name_is_an_error(quantize, tiny):
    said = quantize(tiny(), "Q8_0", "-o", "x" * 300, code=1)
    assert said.count("\n") == 1 and "x" * 300 in said


@pytest.mark.slow
def test_a_full_disk_is_refused_before_the_work(quantize, tiny, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100, 99, 1))
    assert "disk" in quantize(tiny(), "Q8_0", code=1)
    assert not list(quantize.folder.iterdir())
    assert "nowhere" in quantize(tiny(), "Q8_0", "-o", "nowhere/x.gguf", code=1)


def test_numbers_of_quants_equal_those_of_llamacpp():
    from lcp.engine.llama_library import library

    kinds = file_types()
    assert kinds["Q4_K_M"] == library().LLAMA_FTYPE_MOSTLY_Q4_K_M
    assert kinds["IQ4_XS"] == library().LLAMA_FTYPE_MOSTLY_IQ4_XS


@pytest.mark.slow
def test_ctrl_c_stops_it_and_leaves_no_file(home, smollm2, tmp_path):
    words = ["quantize", smollm2, "IQ4_XS", "-o", tmp_path / "x.gguf"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lcp", *words],
        env=terminal_environment(home), start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not any(p.stat().st_size for p in tmp_path.glob("x.gguf.*")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # to lcp alone, not to its child
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not list(tmp_path.glob("x.gguf*"))
