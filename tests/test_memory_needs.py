"""The memory of a model: llama.cpp's figures without allocation equal those of a real load."""

import base64
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import headers
import pytest

from lcp.errors import ModelError, NativeError
from lcp.modelfile.llamacpp_answers import ask, gpus
from lcp.modelfile.memory_needs import exact, skeleton, split
from lcp.modelfile.model_files import local

pytestmark = pytest.mark.slow  # processes, servers and time-outs

REPOSITORY = Path(__file__).parents[1]
MIB = 1 << 20
ROUNDED = 0.0051 * MIB  # llama.cpp logs MiB with two decimals
ROWS = [(256, "f16"), (1000, "f16"), (4096, "f16"), (256, "q8_0"), (4096, "q8_0"), (1000, "q4_0")]

# The model and its contexts as in a chat whose context is full, and llama.cpp's log about
# their buffers.
REAL = """
import json, sys
from pathlib import Path
from lcp.engine.kv_cells import keep_all_cells
from lcp.engine.context import Context
from lcp.engine.model import Model
from lcp.engine.llama_library import StopByte, log
from lcp.errors import LcpError

path, rows = json.load(sys.stdin)
model = Model.load(Path(path))
said = [list(log.lines)]
for size, kv_type in rows:
    whole = keep_all_cells(model, size, kv_type)
    try:
        how = {"kv_type": kv_type, "swa_full": whole, "start": size}
        context = Context(model, size, StopByte(), threads=1, **how)
    except LcpError:
        said.append(None)
        continue
    said.append(list(log.lines))
    context.close()
print(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Child processes import this lcp."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def python(code, wish):
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(wish), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wish(header_bytes, header, rows):
    """The input of the child's task "memory"."""
    return {
        "header": base64.b64encode(header_bytes).decode(), "data_size": header.data_size,
        "name": "m.gguf", "n_gpu_layers": -1, "flash_attn": "auto", "repack": True, "rows": rows,
    }  # fmt: skip


def logged(lines, what):
    """The sum of a kind of buffers in bytes, without mapped ones."""
    pattern = re.compile(rf"(\S+) +{what} buffer size = +([\d.]+) MiB")
    found = [match.groups() for line in lines if (match := pattern.search(line))]
    return sum(float(mib) * MIB for name, mib in found if "Mapped" not in name)


def assert_is_real(path, rows):
    """Every figure equals the real load's."""
    told = exact(local(path).header, rows)
    loaded, *contexts = python(REAL, [str(path), rows])
    mapped = sum(float(m[1]) for x in loaded if (m := re.search(r"Mapped model .* ([\d.]+) M", x)))
    assert told.weights_anon == pytest.approx(logged(loaded, "model"), abs=ROUNDED)
    if not told.weights_anon:  # otherwise, the mapping includes repacked weights
        assert told.weights_file == pytest.approx(mapped * MIB, abs=ROUNDED)
    refused = [row for row, lines in zip(rows, contexts, strict=True) if lines is None]
    assert list(told.refused) == refused
    made = [lines for lines in contexts if lines is not None]
    assert len(told.rows) == len(made) > 0
    for row, lines in zip(told.rows, made, strict=True):
        kv = logged(lines, "KV") + logged(lines, "RS")
        assert row.kv == pytest.approx(kv, abs=3 * ROUNDED)
        assert row.compute == pytest.approx(logged(lines, "compute"), abs=ROUNDED)
        assert row.output == pytest.approx(logged(lines, "output"), abs=ROUNDED)
        assert row.total == told.weights + row.kv + row.compute + row.output
        assert row.context % 256 == 0
        parts = sum(device.total for device in row.devices)
        assert parts + row.output == row.total


@pytest.mark.parametrize("kind", ["dense", "swa", "hybrid_mrope", "moe"])
def test_exact_figures_equal_a_real_load(tiny, kind, monkeypatch):
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "0")
    assert_is_real(tiny(kind, quant="Q8_0", head=32), ROWS)


@pytest.mark.parametrize("kind", ["recurrent", "hybrid", "mrope", "mla"])
def test_contexts_that_llama_cpp_refuses_are_refused(tiny, kind, monkeypatch):
    """Heads of 16 numbers do not fit into blocks of 32; recurrent states have no blocks."""
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "0")
    assert_is_real(tiny(kind, quant="Q8_0"), ROWS)


SMOLLM2_ROWS = [(2048, "f16"), (8192, "f16"), (2048, "q8_0"), (8192, "q8_0"), (3000, "q4_0")]


@pytest.mark.slow
@pytest.mark.parametrize("repacked", [False, True])
def test_exact_figures_equal_a_load_of_the_real_model(smollm2, repacked, monkeypatch):
    """Repacked weights are copies in addition to the file."""
    monkeypatch.setenv("LCP_EXTRA_BUFTS", str(int(repacked)))
    assert_is_real(smollm2, SMOLLM2_ROWS)


def test_exact_figures_count_repacked_weights(tiny, monkeypatch):
    """Which formats are repacked depends on the CPU; a real load tells the bytes."""
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "1")
    assert_is_real(tiny("dense", quant="Q4_0"), ROWS[:2])


def test_known_figures(smollm2, monkeypatch):
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "0")
    told = exact(local(smollm2).header, SMOLLM2_ROWS)
    assert [row.kv / MIB for row in told.rows[:4]] == [45.0, 180.0, 23.90625, 95.625]
    assert [row.context for row in told.rows] == [2048, 8192, 2048, 8192, 3072]
    assert told.weights_file / MIB == pytest.approx(92.103, abs=0.001)


def test_a_header_is_enough(smollm2):
    """The same figures from the whole header and from its skeleton."""
    model = local(smollm2)
    with smollm2.open("rb") as file:
        whole_header = file.read(model.header.data_start)
    of_file = ask("memory", wish(whole_header, model.header, SMOLLM2_ROWS))
    told = exact(model.header, SMOLLM2_ROWS)
    assert told.weights == sum(of_file["weights"].values())
    for row, whole in zip(told.rows, of_file["rows"], strict=True):
        assert [row.context, row.kv, row.compute, row.output] == [
            whole[name] for name in ("context", "kv", "compute", "output")
        ]
    assert len(skeleton(model.header)) < 20_000 < model.header.data_start


def test_flash_attention_is_that_of_a_chat(smollm2):
    """Off on the CPU unless the cache is quantised; it makes the buffers smaller."""
    header = local(smollm2).header
    sizes = [
        exact(header, [(8192, "f16")], flash_attn=flash).rows[0].compute
        for flash in ("auto", "off", "on")
    ]
    assert sizes[0] == sizes[1] > sizes[2]
    assert exact(header, [(512, "q8_0")], flash_attn="off").rows == ()


# headers on which llama.cpp aborts


@pytest.mark.parametrize(
    "facts, said",
    [
        ({"block_count": 0}, "0 layers"),
        ({"block_count": 513}, "513 layers"),
        ({"block_count": None}, "0 layers"),
        ({"block_count": "many"}, "0 layers"),
        ({"expert_count": 1025}, "1,025 experts"),
        ({"expert_used_count": 129}, "more experts than"),
        ({"nextn_predict_layers": 48}, "draft layers"),
    ],
)
def test_headers_on_which_llama_cpp_aborts_are_errors(tmp_path, facts, said):
    model = local(headers.write(tmp_path / "model.gguf", "qwen3moe", **facts))
    with pytest.raises(ModelError, match=said) as raised:
        exact(model.header, [(512, "f16")], name="model.gguf")
    assert "model.gguf" in str(raised.value)


@pytest.mark.parametrize(
    "facts",
    [
        {"expert_group_count": 200},  # GGML_ASSERT: SIGABRT
        {"rope__scaling__type": "bent"},  # another
        {"vocab_size": 110_000_000},  # a table of 4 GB
        {"embedding_length": 0},
        {"attention__head_count": 3},
        {"context_length": None},
    ],
)
def test_a_hostile_header_crashes_only_the_child(tmp_path, facts):
    model = local(headers.write(tmp_path / "model.gguf", "qwen3moe", **facts))
    with pytest.raises(ModelError) as raised:
        exact(model.header, [(512, "f16"), (1024, "q8_0")], name="model.gguf")
    said = str(raised.value)
    assert "model.gguf" in said and "pip install --upgrade llama-cpp-python" in said
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak * (1 if sys.platform == "darwin" else 1024) < 2 << 30


def test_an_unknown_architecture_is_named(tmp_path):
    values, shapes = headers.MODELS["llama"]()
    values = {key.replace("llama.", "llama9."): value for key, value in values.items()}
    values["general.architecture"] = "llama9"
    header = local(headers.write_header(tmp_path / "new.gguf", values, shapes)).header
    with pytest.raises(ModelError, match="'llama9'"):
        exact(header, [(8192, "f16")])


def test_without_llama_cpp_there_are_no_figures(smollm2, tmp_path, monkeypatch):
    package = tmp_path / "broken" / "llama_cpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(REPOSITORY)]))
    with pytest.raises(NativeError):
        exact(local(smollm2).header, [(2048, "f16")])


LOG_ONLY = """
import json, sys
from lcp.engine.trial_load import memory_needs
print(json.dumps(memory_needs(json.load(sys.stdin), by_buffer=lambda ctx: [])))
"""


def test_the_log_gives_the_same_figures(tmp_path):
    """If the breakdown cannot be read, the log is, to 0.01 MiB; it does not have the weights."""
    for name in ("gemma3", "qwen3next"):
        header = local(headers.write(tmp_path / f"{name}.gguf", name)).header
        rows = [(1000, "f16"), (8192, "q8_0")]
        told = python(LOG_ONLY, wish(skeleton(header), header, rows))
        assert told["weights"] is None
        for row, whole in zip(told["rows"], exact(header, rows).rows, strict=True):
            assert row["kv"] == pytest.approx(whole.kv, abs=3 * ROUNDED)
            assert row["compute"] == pytest.approx(whole.compute, abs=ROUNDED)
            assert row["output"] == whole.output


def test_devices():
    told = ask("devices")
    cpus = [device for device in told["devices"] if device["kind"] == "cpu"]
    assert len(cpus) == 1 and cpus[0]["total"] > 0 and cpus[0]["name"] == "CPU"
    assert all(gpu.total for gpu in gpus()) and (told["gpu"] or not gpus())


# other files


def test_a_split_model_is_one_model(tmp_path):
    values, shapes = headers.MODELS["llama"]()
    whole = local(headers.write_header(tmp_path / "whole.gguf", values, shapes))
    names = list(shapes)
    for i, part in enumerate((names[:100], names[100:])):
        split = {"split.no": i, "split.count": 2, "split.tensors.count": len(names)}
        headers.write_header(
            tmp_path / f"part-0000{i + 1}-of-00002.gguf",
            (values if i == 0 else {"general.architecture": "llama"}) | split,
            {name: shapes[name] for name in part},
        )
    parts = local(tmp_path / "part-00001-of-00002.gguf")
    rows = [(4096, "f16"), (4096, "q8_0")]
    assert exact(parts.header, rows) == exact(whole.header, rows)


def test_memory_on_an_imagined_gpu(tmp_path):
    """The output goes first, then blocks from the last one on; the input never."""
    header = local(headers.write(tmp_path / "model.gguf", "llama")).header
    memory = exact(header, [(8192, "f16")])
    sizes = {t.name: t.n_bytes for t in header.tensors}
    on_gpu = []
    for layers in range(34):
        told = split(memory, header, layers)
        cpu, gpu = told.rows[0].devices
        on_gpu.append(gpu.weights)
        assert cpu.kv + gpu.kv == memory.rows[0].kv
        assert told.weights == sum(sizes.values())
        assert told.weights_gpu == gpu.weights
        row = told.rows[0]
        assert row.total == told.weights + row.kv + row.compute + row.output
        assert (told.weights_anon > 0) == (memory.weights_anon > 0)
    assert on_gpu[0] == 0
    assert on_gpu[1] == sizes["output.weight"] + sizes["output_norm.weight"]
    block = sum(size for name, size in sizes.items() if name.startswith("blk.31."))
    assert on_gpu[2] - on_gpu[1] == block
    assert on_gpu[33] == sum(sizes.values()) - sizes["token_embd.weight"]
    assert split(memory, header, -1) == split(memory, header, 33)
    assert split(memory, header, 33).rows[0].total == memory.rows[0].total
    assert split(memory, header, 5, "CUDA0").rows[0].devices[1].name == "CUDA0"


def test_a_shared_embedding_and_output_is_on_both_devices(tmp_path):
    header = local(headers.write(tmp_path / "model.gguf", "gemma3")).header
    cpu, gpu = split(exact(header, [(8192, "f16")], repack=False), header, -1).rows[0].devices
    sizes = {t.name: t.n_bytes for t in header.tensors}
    assert cpu.weights == sizes["token_embd.weight"]
    assert gpu.weights == sum(sizes.values())
