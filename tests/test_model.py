"""A GGUF in memory: errors of files, text and tokens, facts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lcp.engine.model import Model
from lcp.errors import ModelError, ModelNotFound, NotEnoughMemory


def load(path, **options):
    """Load a model; a test may leave it open, as a process would."""
    return Model.load(path, **options)


@pytest.fixture(scope="module")
def dense(tiny):
    model = load(tiny("dense"))
    yield model
    model.close()


@pytest.fixture(scope="module")
def real(smollm2):
    model = load(smollm2)
    yield model
    model.close()


# files that are not models


def refusal(path, kind=ModelError):
    """The error for a file, which must have exactly this type."""
    with pytest.raises(ModelError) as raised:
        load(path)
    assert type(raised.value) is kind
    sentence = str(raised.value)
    assert "\n" not in sentence and sentence == sentence.strip()
    return sentence


def test_a_missing_file(tmp_path):
    path = tmp_path / "no.gguf"
    assert str(path) in refusal(path, ModelNotFound)


def test_a_folder(tmp_path):
    assert f"{tmp_path} is a folder" in refusal(tmp_path, ModelNotFound)


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\3\4 a zip", b"GGML then something"])
def test_a_file_that_is_not_gguf(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    assert "is not a GGUF file" in refusal(path)


def test_an_unreadable_file(tmp_path):
    path = tmp_path / "x.gguf"
    path.symlink_to(path)
    assert "Too many levels of symbolic links" in refusal(path)


def test_a_name_that_is_too_long(tmp_path):
    assert "File name too long" in refusal(tmp_path / ("x" * 300))


@pytest.mark.parametrize("share", [0.00001, 0.0001, 0.002, 0.015, 0.022, 0.03, 0.5, 0.9, 0.99999])
def test_a_truncated_file(tiny, tmp_path, share):
    """In the magic's version, in the header, the tokens, the tensors' names, the tensors."""
    whole = tiny("dense").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: max(4, int(share * len(whole)))])
    assert "cut.gguf is incomplete" in refusal(path)


def test_an_unknown_architecture(tiny, tmp_path):
    path = tmp_path / "new.gguf"
    path.write_bytes(tiny("dense").read_bytes().replace(b"llama", b"lxama"))
    sentence = refusal(path)
    assert "new.gguf has the architecture 'lxama'" in sentence
    assert sentence.endswith("Upgrade: pip install --upgrade llama-cpp-python")


def test_a_newer_header_version(tiny, tmp_path):
    path = tmp_path / "new.gguf"
    whole = tiny("dense").read_bytes()
    path.write_bytes(whole[:4] + b"\x63" + whole[5:])
    assert "version 99" in refusal(path)


def test_a_missing_tensor(tiny, tmp_path):
    path = tmp_path / "odd.gguf"
    path.write_bytes(tiny("dense").read_bytes().replace(b"blk.1.attn_q", b"blk.1.attn_z"))
    sentence = refusal(path)
    assert "cannot load odd.gguf: " in sentence and "'blk.1.attn_q.weight' not found." in sentence
    assert sentence.endswith("pip install --upgrade llama-cpp-python")


def test_a_model_larger_than_memory(tiny, tmp_path):
    path = tmp_path / "large.gguf"
    path.write_bytes(tiny("dense").read_bytes())
    os.truncate(path, 3 << 30)  # a hole
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from lcp.engine.model import Model\n"
        "from lcp.errors import NotEnoughMemory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "try: Model.load(Path(sys.argv[1]))\n"
        "except NotEnoughMemory as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert "memory" in done.stdout and "large.gguf (3.22 GB)" in done.stdout
    assert issubclass(NotEnoughMemory, ModelError)


def test_progress_goes_up_to_one(tiny):
    seen = []
    load(tiny("dense"), on_progress=lambda fraction: seen.append(fraction) or True).close()
    assert seen == sorted(seen)
    assert seen[0] < 0.5 and seen[-1] == 1


def test_a_load_can_be_stopped(tiny):
    seen = []
    with pytest.raises(ModelError, match="was stopped"):
        load(tiny("dense"), on_progress=lambda fraction: seen.append(fraction) or len(seen) < 3)
    assert len(seen) == 3


def test_a_model_can_be_closed_twice(tiny):
    model = load(tiny("dense"))
    model.close()
    model.close()


# text and tokens

texts = st.text(max_size=60)


@pytest.mark.slow
@given(texts)
@example("")
@example(" leading, and  double spaces\n\n\ttrailing ")
@example("日本 🙂 é \0 \ufffd <0x41>")
@settings(max_examples=200, deadline=None)
def test_tokens_give_back_the_text(dense, text):
    assume("▁" not in text)  # how sentencepiece spells a space
    assert dense.text(dense.tokenize(text)) == text.encode("utf-8", "replace").decode()


@pytest.fixture(scope="module")
def unspeakable(real):
    """Bytes without a token in the real model; its tokenizer drops them."""
    pieces = {real.piece(token) for token in range(real.n_vocab)}
    return {byte for byte in range(256) if bytes([byte]) not in pieces}


@pytest.mark.slow
@given(texts)
@settings(max_examples=200, deadline=None)
def test_tokens_of_the_real_model_give_back_the_text(real, unspeakable, text):
    raw = text.encode("utf-8", "replace")
    assume(not unspeakable & set(raw))
    assert real.text(real.tokenize(text)) == raw.decode()


@pytest.mark.slow
@given(texts)
@settings(max_examples=100, deadline=None)
def test_tokenizing_as_text_gives_no_control_tokens(real, unspeakable, text):
    raw = text.encode("utf-8", "replace")
    assume(not unspeakable & set(raw))
    tokens = real.tokenize(text, special=False)
    assert not any(real.is_control(token) for token in tokens)
    assert b"".join(real.piece(token) for token in tokens) == raw


def test_control_tokens_are_parsed_only_on_request(real):
    (token,) = real.tokenize("<|im_end|>", special=True)
    assert real.is_control(token) and real.is_end(token)
    as_text = real.tokenize("<|im_end|>", special=False)
    assert len(as_text) > 1
    assert real.text(as_text) == real.text([token]) == "<|im_end|>"


def test_a_control_token_has_no_bytes_in_an_answer(real):
    (token,) = real.tokenize("<|im_end|>")
    assert real.piece(token) == b""
    assert real.piece(token, special=True) == b"<|im_end|>"


def test_a_piece_longer_than_the_first_buffer_is_complete(tiny):
    word = "w" * 100
    model = load(tiny("dense", words=(word,)))
    assert model.piece(model.n_vocab - 1) == word.encode()
    model.close()


def test_an_incomplete_character_is_a_replacement_character(dense):
    first, _ = dense.tokenize("é")
    assert dense.text([first]) == "\ufffd"


def test_a_lone_surrogate_has_tokens(dense):
    assert dense.text(dense.tokenize("a\ud800b")) == "a?b"


def test_no_bos_is_added_to_text(dense, real):
    for model in (dense, real):
        assert model.bos not in model.tokenize("Hello")


def test_bos_and_eos_come_from_the_file(dense):
    assert (dense.bos, dense.eos) == (1, 2)
    assert dense.adds_bos
    assert dense.is_end(2) and not dense.is_end(5)
    assert dense.is_control(1) and not dense.is_control(5)


def test_a_file_can_turn_bos_off(tiny):
    model = load(tiny("dense", add_bos=False))
    assert not model.adds_bos
    model.close()


# facts


def test_metadata_is_text(dense):
    assert dense.meta("general.architecture") == "llama"
    assert dense.meta("llama.context_length") == "4096"
    assert dense.meta("no.such.key") is None


def test_long_metadata_is_complete(tiny):
    text = "é" * 3000
    model = load(tiny("dense", facts={"general.description": text}))
    assert model.meta("general.description") == text
    model.close()


def test_the_name_comes_from_the_file(dense):
    assert dense.meta("general.name") == "tiny llama"


def test_shapes(dense):
    assert (dense.n_vocab, dense.n_ctx_train, dense.n_layers) == (260, 4096, 2)


@pytest.mark.parametrize(
    "kind, recurrent, window",
    [
        ("dense", False, 0),
        ("swa", False, 32),
        ("recurrent", True, 0),
        ("hybrid", True, 0),
        ("hybrid_mrope", True, 0),
        ("mrope", False, 0),
        ("mla", False, 0),
        ("moe", False, 0),
    ],
)
def test_the_kind_of_memory_is_known(tiny, kind, recurrent, window):
    model = load(tiny(kind))
    assert (model.memory.recurrent, model.memory.window) == (recurrent, window)
    model.close()


def test_the_chat_template_comes_from_the_file(tiny, dense):
    assert "[{{ m.role }}]" in dense.chat_template
    model = load(tiny("dense", template=None))
    assert model.chat_template is None
    model.close()


def test_the_real_model_has_a_chat_template(real):
    assert "<|im_start|>" in real.chat_template


def test_recommended_sampling_is_read(tiny, dense):
    assert dense.sampling == {}
    facts = {
        "general.sampling.temp": 0.25,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 0.5,
        "general.sampling.min_p": 0.125,
        "general.sampling.penalty_last_n": 32,
        "general.sampling.penalty_repeat": 1.5,
    }
    model = load(tiny("dense", facts=facts))
    assert {name: float(value) for name, value in model.sampling.items()} == {
        "temp": 0.25,
        "top_k": 20,
        "top_p": 0.5,
        "min_p": 0.125,
        "repeat_last_n": 32,
        "repeat_penalty": 1.5,
    }
    model.close()


def test_the_fingerprint_depends_on_the_content_not_on_the_path(tiny, tmp_path):
    there = tmp_path / "elsewhere.gguf"
    there.write_bytes(tiny("dense").read_bytes())
    prints = []
    for path in (tiny("dense"), there, tiny("dense", seed=1), tiny("moe")):
        model = load(path)
        prints.append(model.fingerprint)
        model.close()
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in prints)


def test_a_change_at_the_end_of_a_file_changes_the_fingerprint(tiny, tmp_path):
    whole = bytearray(tiny("dense").read_bytes())
    whole[-1] ^= 1  # the file is shorter than the part that is hashed
    path = Path(tmp_path / "other.gguf")
    path.write_bytes(whole)
    one, other = load(tiny("dense")), load(path)
    assert one.fingerprint != other.fingerprint
    one.close()
    other.close()


def test_a_change_at_the_end_of_a_long_file_changes_the_fingerprint(tiny, tmp_path):
    prints = set()
    for last in (b"\0", b"\1"):
        path = tmp_path / "long.gguf"
        path.write_bytes(tiny("dense").read_bytes() + bytes(3 << 20) + last)
        model = load(path)
        prints.add(model.fingerprint)
        model.close()
    assert len(prints) == 2
