"""Settings that a model's makers recommend never prevent the use of the model."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny as tiny_models
from terminal import terminal_environment

from lcp.recommended_settings import usable


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("temp", -1, 0), ("temp", "-1.000000", 0), ("temp", 0.7, 0.7), ("temp", "1", 1),
        ("top_k", -1, 0), ("top_k", "40.000000", 40), ("top_p", 1.5, 1), ("top_p", -1, 0),
        ("min_p", -0.5, 0), ("min_p", 2, 1), ("repeat_last_n", -1, 1_000_000),
        ("repeat_last_n", -7, 0), ("repeat_penalty", 1.0, 1.0), ("seed", "random", None),
        ("stop", ["x"], ("x",)),
    ],
)  # fmt: skip
def test_values_that_llama_cpp_accepts_are_used(name, raw, value):
    assert usable({name: raw}, "model file") == ({name: value}, [])


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("temp", "hot"), ("temp", math.nan), ("temp", "inf"), ("temp", True), ("temp", [1]),
        ("top_k", 2.5), ("top_k", "nan"), ("top_k", math.inf), ("repeat_penalty", 0),
        ("repeat_last_n", "nan"), ("min_p", {}), ("tempp", 1), ("kv_type", "f99"),
    ],
)  # fmt: skip
def test_invalid_values_are_left_out_with_a_notice(name, raw):
    found, (notice,) = usable({name: raw, "top_p": 0.5}, "models.toml")
    assert found == {"top_p": 0.5}
    assert name in notice and "models.toml" in notice


def chat(home, *words):
    return subprocess.run(
        [sys.executable, "-m", "lcp", "chat", *map(str, words)], env=terminal_environment(home),
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_model_with_invalid_recommendations_answers(tmp_path):
    home = Path(os.environ["LCP_HOME"])
    facts = {"general.sampling.temp": -1.0, "general.sampling.top_k": "many"}
    path = tiny_models.write(tmp_path / "odd.gguf", facts=facts, words=["a", "b"])
    done = chat(home, path, "hi", "-n", 2)
    assert done.returncode == 0
    assert "top_k" in done.stderr and "many" in done.stderr and "temp" not in done.stderr
    (home / "config").mkdir(parents=True)
    (home / "config/models.toml").write_text('[smollm2-135m]\ntemp = -1\ntop_p = "much"\n')
    done = chat(home, "smollm2-135m", "hi", "-n", 2)
    assert (done.returncode, bool(done.stdout)) == (0, True)
    assert "top_p" in done.stderr and "much" in done.stderr
    assert chat(home, "smollm2-135m", "hi", "--temp", "hot").returncode == 2
