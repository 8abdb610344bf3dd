"""The cache of many families, by formulas and by llama.cpp, from their numbers alone.

llama.cpp makes up the tensors of a model that has none: its weights are wrong then, not its cache.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import headers
import pytest

from lcp.modelfile import formulas
from lcp.modelfile.parts import local

REPOSITORY = Path(__file__).parents[1]
ROWS = [(1000, "f16"), (8192, "q8_0"), (131072, "f16")]
LAYERS = 32

DENSE = {"attention__head_count": 32, "attention__head_count_kv": 8, "feed_forward_length": 8192}
WINDOW = DENSE | {"attention__sliding_window": 500}
MOE = {
    "expert_count": 16, "expert_used_count": 2, "expert_feed_forward_length": 1024,
    "expert_shared_count": 1, "expert_gating_func": 2, "leading_dense_block_count": 1,
}  # fmt: skip
SSM = {
    "ssm__conv_kernel": 4, "ssm__inner_size": 4096, "ssm__state_size": 128,
    "ssm__time_step_rank": 32, "ssm__group_count": 8,
}  # fmt: skip
SOME_HEADS = {"attention__head_count_kv": [8 if i % 4 == 3 else 0 for i in range(LAYERS)]}
NORM = {"attention__layer_norm_epsilon": 1e-5}
RWKV = {"wkv__head_size": 64, "feed_forward_length": 7168, "attention__head_count": 0} | NORM
MIXED = {"attention__sliding_window_pattern": [i % 6 != 5 for i in range(LAYERS)]}

# architecture, numbers
FAMILIES = [
    ("mistral3", DENSE),
    ("deci", DENSE | {"attention__head_count_kv": [8] * 16 + [0] * 16}),
    ("gemma2", DENSE),
    ("gemma3n", WINDOW),
    ("gemma4", WINDOW | MIXED | {
        "attention__shared_kv_layers": 8, "attention__key_length": 256,
        "attention__value_length": 256, "attention__key_length_swa": 128,
        "rope__dimension_count": 256,
        "attention__value_length_swa": 128, "rope__dimension_count_swa": 128,
        "embedding_length_per_layer_input": 256,
    }),
    ("llama4", DENSE | MOE | {"interleave_moe_layer_step": 2}),
    ("exaone4", WINDOW),
    ("exaone4", WINDOW | {"block_count": 64}),
    ("exaone-moe", WINDOW | MOE),
    ("smallthinker", WINDOW | MOE),
    ("plamo3", WINDOW),
    ("olmo2", WINDOW),
    ("afmoe", WINDOW | MOE),
    ("laguna", WINDOW | MOE),
    ("cohere2moe", WINDOW | MOE | NORM | {"logit_scale": 1.0}),
    ("step35", WINDOW | MOE | MIXED),
    ("mimo2", WINDOW | MOE | MIXED | {
        "attention__key_length": 96, "attention__value_length": 64, "rope__dimension_count": 96,
    }),
    ("mamba2", SSM),
    ("rwkv6", RWKV | {"time_mix_extra_dim": 32, "time_decay_extra_dim": 64}),
    ("rwkv7", RWKV | {
        "attention__decay_lora_rank": 64, "attention__iclr_lora_rank": 64,
        "attention__value_residual_mix_lora_rank": 32, "attention__gate_lora_rank": 128,
    }),
    ("falcon-h1", DENSE | SSM),
    ("plamo2", DENSE | SSM | SOME_HEADS | {"ssm__group_count": 0}),
    ("lfm2moe", DENSE | MOE | SOME_HEADS | {"shortconv__l_cache": 3}),
    ("nemotron_h", DENSE | SSM | SOME_HEADS | NORM | {
        "feed_forward_length": [8192 if i % 4 == 1 else 0 for i in range(LAYERS)],
    }),
    ("kimi-linear", DENSE | MOE | {
        "attention__head_count_kv": [1 if i % 4 == 3 else 0 for i in range(LAYERS)],
        "attention__key_length": 576, "attention__value_length": 512,
        "attention__key_length_mla": 192, "attention__value_length_mla": 128,
        "attention__kv_lora_rank": 512, "rope__dimension_count": 64, "ssm__conv_kernel": 4,
        "kda__head_dim": 128,
    }),
    ("minimax-01", DENSE | MOE | {"residual_scale": 1.0}),
    ("qwen35", DENSE | SSM | {"rope__dimension_sections": [4, 2, 2, 0]}),
]  # fmt: skip

# Models of numbers alone, and what their contexts take.
ASK = """
import ctypes, json, sys
from pathlib import Path
from lcp.engine import memory_needs
from lcp.engine.model import Model
from lcp.engine.params import model_params
from lcp.engine.native import library, symbol

class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]

library()
params = model_params(0)
params.no_alloc, params.load_mode = True, 0
fill = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda tensor, data: None)
read, make = symbol("gguf_init_from_buffer"), symbol("llama_model_init_from_user")
read.restype = make.restype = ctypes.c_void_p
read.argtypes = [ctypes.c_char_p, ctypes.c_size_t, Params]
make.argtypes = [ctypes.c_void_p, type(fill), ctypes.c_void_p, type(params)]
wish = json.load(sys.stdin)
for path in wish["paths"]:
    raw = Path(path).read_bytes()
    handle = make(read(raw, len(raw), Params(True, None)), fill, None, params)
    assert handle, path
    model = Model(handle, Path(path))
    how = ("auto", False, memory_needs.breakdown)
    rows = [memory_needs.context_needs(model, *row, *how) for row in wish["rows"]]
    print(json.dumps(rows), flush=True)
    model.close()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Header and rows of each family; one process for all."""
    folder = tmp_path_factory.mktemp("families")
    paths = []
    for i, (arch, numbers) in enumerate(FAMILIES):
        values = headers.common(arch, LAYERS, 2048, 999, **numbers)
        paths.append(headers.write_header(folder / f"{i}-{arch}.gguf", values, {}))
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps({"paths": [str(path) for path in paths], "rows": ROWS}),
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), f"{paths[len(lines)].name}: {done.stderr[-500:]}"
    return [(local(path).header, json.loads(line)) for path, line in zip(paths, lines, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(FAMILIES)), ids=[arch for arch, _ in FAMILIES])
def test_the_cache_of(told, i):
    header, rows = told[i]
    for (context, kv_type), row in zip(ROWS, rows, strict=True):
        flash, whole = row["flash_attn"] == "on", row["swa_full"]
        cache = formulas.cache(header.values, context, kv_type, flash, whole)
        assert cache.total == row["kv"]
        assert sum(cache.state) == pytest.approx(row["state"], abs=5400)  # logged as MiB, rounded
