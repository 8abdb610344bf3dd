"""What a file is for: chat and info agree, and never suggest downloading it again."""

import pytest
import tiny as tiny_models
from ggufs import ARRAY, BOOL, I32, STRING, U32, described, gguf, pair
from test_trial_load import lcp

from lcp.modelfile.model_files import OpenFile, local, open_model
from lcp.modelfile.non_chat_models import not_for_chat

TENSORS = (("t", (32,), 0),)
TYPE = "general.type"


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        ([*described("llama"), pair(TYPE, STRING, "adapter")], "LoRA adapter"),
        ([*described("llama"), pair("adapter.type", STRING, "lora")], "LoRA adapter"),
        (described("clip"), "projector"),
        ([*described("qwen2vl"), pair(TYPE, STRING, "mmproj")], "projector"),
        ([pair(TYPE, STRING, "imatrix")], "importance matrix"),
        ([pair("imatrix.chunk_count", U32, 3)], "importance matrix"),
        (described("controlvector"), "control vector"),
        (described("bert", block_count=1), "embedding model"),
        (described("qwen3", block_count=1, pooling_type=3), "embedding model"),
        ([*described("llama"), pair("llama.attention.causal", BOOL, False)], "embedding model"),
        (described("qwen3", block_count=1, pooling_type=4), "reranker"),
        (described("llada", block_count=1), "diffusion model"),
        (described("t5", block_count=1), "encoder-decoder"),
        (described("gemma4-assistant", block_count=1), "draft model"),
        (described("flux"), "image or video model"),
        ([pair("general.name", STRING, "x")], "general.architecture"),
        (
            [*described("qwen35"), pair("qwen35.rope.dimension_sections", ARRAY, (I32, [1, 2, 3]))],
            "Ollama",
        ),
    ],
)
def test_files_that_are_not_chat_models(pairs, what):
    why = not_for_chat(header(pairs))
    assert what in why
    assert "again" not in why


@pytest.mark.parametrize(
    "pairs",
    [
        described("llama", block_count=1),
        described("qwen3", block_count=1, pooling_type=0),
        [*described("llama"), pair("llama.attention.causal", BOOL, True)],
        [*described("qwen35"), pair("qwen35.rope.dimension_sections", ARRAY, (I32, [1, 2, 3, 0]))],
        described("of-next-year", block_count=1),
    ],
)
def test_files_that_may_be_chat_models(pairs):
    assert not_for_chat(header(pairs)) == ""


def header(pairs):
    data = gguf(pairs, TENSORS)
    source = OpenFile("x.gguf", len(data), lambda offset, n: data[offset : offset + n])
    return open_model("x.gguf", lambda name: source).header


def test_tiny_models_of_all_kinds_are_chat_models(tiny):
    assert not any(not_for_chat(local(tiny(kind)).header) for kind in tiny_models.KINDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "what", "then"),
    [
        (gguf(described("clip"), TENSORS), "projector", "the model's own file"),
        (gguf(described("bert", block_count=1), TENSORS), "embedding model", "chat"),
        (gguf(described("of-next-year", block_count=1), TENSORS), "'of-next-year'", "pip install"),
        (gguf(described("llama", block_count="1"), TENSORS), "llama.", "pip install"),
    ],
    ids=["projector", "encoder", "architecture", "type"],
)
def test_chat_and_info_agree(tmp_path, content, what, then):
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    chat = lcp("chat", path, "hi")
    assert (chat.returncode, chat.stdout, len(chat.stderr.splitlines())) == (1, "", 1)
    page = lcp("info", path, "--check")
    assert page.returncode == 3
    for said in (chat.stderr, " ".join(page.stdout.split())):
        assert what in said and then in said
        assert "ownload" not in said and "0 layers" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\3\4" + bytes(60), "zip"),
        (b"<!DOCTYPE html><html>" + bytes(60), "web page"),
        (b"\x20" + bytes(7) + b'{"__metadata__":{}}', "safetensors"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(60), "version 1"),
        (gguf([pair("general.architecture", STRING, "llama", ">")], TENSORS, order=">"), "endian"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_a_file_that_is_not_gguf_is_named(tmp_path, content, what):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    done = lcp("chat", path, "hi")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert what in done.stderr and "ownload it again" not in done.stderr
