"""Files on which llama.cpp aborts, or that it refuses: an error, never a crash."""

import json
import os
import subprocess
import sys

import pytest
import tiny as tiny_models
from terminal import terminal_environment

from lcp.errors import ModelError
from lcp.modelfile.llamacpp_answers import check_loads
from lcp.modelfile.model_files import local

TOKENS = "tokenizer.ggml.tokens"


def tokens(change):
    def changed(keys):
        keys[TOKENS] = tiny_models.value(change(list(keys[TOKENS].value)))

    return changed


def put(**values):
    """Values of the metadata, `__` for a dot."""
    return lambda keys: keys.update(
        {key.replace("__", "."): tiny_models.value(it) for key, it in values.items()}
    )


# Changes that aborted the chat, and what else the error should say.
SPOILED = {
    "a token twice": (tokens(lambda t: [*t[:100], t[101], *t[101:]]), "the same token twice"),
    "empty tokens": (tokens(lambda t: [""] * len(t)), "crashes"),
    "an endless token": (tokens(lambda t: [*t[:100], "x" * 100_000, *t[101:]]), ""),
    "no vocabulary": (put(tokenizer__ggml__model="no_vocab"), ""),
    "another vocabulary": (put(tokenizer__ggml__model="bert"), ""),
    "experts without weights": (put(llama__expert_count=3), "expert"),
    "too many layers": (put(llama__block_count=2**31), ""),
    "layers that draft": (put(llama__nextn_predict_layers=7), ""),
    "a negative epsilon": (put(llama__attention__layer_norm_rms_epsilon=-1.0), "epsilon = -1.0"),
    "no number": (put(llama__attention__layer_norm_rms_epsilon=float("nan")), "epsilon = nan"),
    "few types": (put(tokenizer__ggml__token_type=[1] * 10), "toktypes"),
    "few scores": (put(tokenizer__ggml__scores=[0.0] * 10), "scores"),
    "a wrong type": (put(llama__block_count="many"), "llama.block_count"),
    "no heads": (put(llama__attention__head_count=0), ""),
    "a short list": (put(llama__attention__head_count=[4, 4, 4]), "head_count"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SPOILED)
def test_a_file_that_llama_cpp_cannot_load_is_an_error(tmp_path, what):
    change, said = SPOILED[what]
    path = tiny_models.write(tmp_path / "spoiled.gguf", change=change)
    with pytest.raises(ModelError) as caught:
        check_loads(local(path), tmp_path / "known")
    sentence = str(caught.value)
    assert "spoiled.gguf" in sentence and said in sentence and "\n" not in sentence
    assert sentence.endswith("pip install --upgrade llama-cpp-python")


def lcp(*words):
    environment = {**terminal_environment(os.environ["LCP_HOME"]), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "lcp", *map(str, words)], env=environment, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_duplicate_token_crashes_neither_chat_nor_info(tmp_path):
    """As in the official files of Gemma 4 QAT."""
    path = tiny_models.write(tmp_path / "twice.gguf", change=SPOILED["a token twice"][0])
    chat = lcp("chat", path, "hi")
    assert (chat.returncode, chat.stdout, len(chat.stderr.splitlines())) == (1, "", 1)
    assert "same token twice" in chat.stderr
    page = lcp("info", path, "--check")
    assert page.returncode == 3 and "same token twice" in page.stdout.replace("\n", " ")
    told = json.loads(lcp("info", path, "--json").stdout)["memory"]
    assert (told["rows"], "same token twice" in told["why"]) == ([], True)


@pytest.mark.slow
def test_a_file_that_passed_is_not_checked_again_unless_it_changes(tmp_path, monkeypatch):
    path = tiny_models.write(tmp_path / "model.gguf")
    known = tmp_path / "known"
    check_loads(local(path), known)
    executable = sys.executable
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    check_loads(local(path), known)
    monkeypatch.setattr(sys, "executable", executable)
    tiny_models.write(path, change=SPOILED["a token twice"][0])
    with pytest.raises(ModelError):
        check_loads(local(path), known)


def test_if_llama_cpp_does_not_run_the_file_is_not_blamed(tmp_path, monkeypatch):
    path = tiny_models.write(tmp_path / "model.gguf")
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    check_loads(local(path), tmp_path / "known")
    assert not list(tmp_path.glob("known/*"))


def test_errors_about_an_ollama_blob_use_ollamas_name(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    path = tiny_models.write(blobs / "sha256-77", change=SPOILED["a short list"][0])
    with pytest.raises(ModelError) as caught:
        check_loads(local(path), tmp_path / "known", "llama9:8b")
    sentence = str(caught.value)
    assert "llama9:8b" in sentence and "sha256-" not in sentence
    assert "Hub instead" in sentence and "upgrade" not in sentence
