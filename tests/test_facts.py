"""Facts of real, tiny and made-up models, and of files with wrong metadata."""

import contextlib
import random
import struct

import ggufs
import pytest
from ggufs import BOOL, STRING, U32, described, gguf, pair

from lcp.errors import GgufError
from lcp.modelfile.facts import facts, template_source
from lcp.modelfile.model_files import OpenFile, local, open_model

MATRIX = ("blk.0.ffn_up.weight", (256, 2))


def model_of(pairs, tensors=((*MATRIX, 0),), **options):
    data = gguf(pairs, tensors, **options)
    source = OpenFile("x.gguf", len(data), lambda offset, n: data[offset : offset + n])
    return open_model("x.gguf", lambda name: source)


def of(pairs, *tensors, **options):
    return facts(model_of(pairs, tensors or ((*MATRIX, 0),), **options))


def test_facts_of_the_real_model(smollm2):
    told = facts(local(smollm2))
    assert told.name == "Smollm2 135M 8k Lc100K Mix1 Ep2"
    assert (told.architecture, told.licence) == ("llama", "apache-2.0")
    assert (told.parameters, told.active_parameters) == (134_515_008, None)
    assert (told.quant, round(told.bits_per_weight, 2)) == ("Q4_1", 5.74)
    assert next(iter(told.mix)) == "Q4_1"
    assert sum(told.mix.values()) == pytest.approx(92.1 * 2**20, rel=0.01)
    assert (told.layers, told.heads, told.kv_heads, told.embedding) == (30, 9, 3, 576)
    assert (told.context_length, told.vocabulary, told.tokenizer) == (8192, 49_152, "gpt2")
    assert (told.template, told.tools, told.thinking) == (True, False, False)
    assert told.kinds == ("Dense: each token uses all weights.",)
    assert told.problems == ()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("dense", "Dense"),
        ("swa", "sliding window of 32 tokens"),
        ("recurrent", "Recurrent"),
        ("hybrid", "Hybrid"),
        ("hybrid_mrope", "Hybrid"),
        ("mrope", "Dense"),
        ("mla", "latent attention"),
        ("moe", "2 of 4 experts"),
    ],
)
def test_facts_of_tiny_models_of_each_kind(tiny, kind, line):
    told = facts(local(tiny(kind)))
    assert any(line in told_line for told_line in told.kinds), told.kinds
    assert told.problems == ()
    assert (told.quant, told.layers, told.context_length) == ("F32", 2, 4096)


def test_a_mixture_of_experts_uses_some_of_its_parameters(tiny):
    told = facts(local(tiny("moe")))
    assert (told.experts, told.experts_used) == (4, 2)
    experts = 2 * 3 * 4 * 64 * 64  # layers, matrices, experts, rows, columns
    assert told.expert_bytes == experts * 4
    assert told.active_parameters == told.parameters - experts // 2


def test_experts_with_one_tensor_each():
    tensors = [(f"blk.0.ffn_up.{i}.weight", (32, 4), 0) for i in range(8)]
    told = of(
        described("llama", block_count=1, expert_count=8, expert_used_count=2),
        ("output.weight", (32, 2), 0), *tensors,
    )  # fmt: skip
    assert (told.parameters, told.active_parameters) == (64 + 8 * 128, 64 + 2 * 128)


# the quant

Q4_0, Q4_K, Q8_0, F32, F16, MXFP4 = 2, 12, 8, 0, 1, 39


@pytest.mark.parametrize(
    ("file_type", "matrices", "quant"),
    [
        (15, [Q4_K, Q8_0], "Q4_K_M"),
        (15, [Q8_0], "Q8_0"),  # copied from another conversion
        (15 + 1024, [Q4_K], "Q4_K_M"),  # guessed by llama.cpp
        (None, [Q4_K, Q8_0, Q4_K, Q4_K], "Q4_K"),
        (0, [Q4_0], "Q4_0"),
        (0, [F32], "F32"),
        (1, [F16, F32], "F32"),
        (38, [MXFP4, Q8_0], "MXFP4"),
        (27, [21], "IQ3_M"),  # made of IQ3_S
        (4711, [Q8_0], "Q8_0"),
    ],
)
def test_the_quant_must_match_the_matrices(file_type, matrices, quant):
    ggufs._BLOCKS.setdefault(21, (256, 110))
    pairs = described("llama", block_count=1)
    if file_type is not None:
        pairs.append(pair("general.file_type", U32, file_type))
    told = of(pairs, *((f"m{i}", (256, 4), kind) for i, kind in enumerate(matrices)))
    assert told.quant == quant


def test_the_mix_of_quants_and_the_bits_per_weight():
    told = of(described("llama"), ("a", (256,), F32), ("b", (256, 4), Q4_K), ("c", (256, 2), Q8_0))
    assert told.mix == {"F32": 1024, "Q4_K": 576, "Q8_0": 544}
    assert told.bits_per_weight == pytest.approx(8 * (1024 + 576 + 544) / 1792)


# what kind of model it is


def test_an_unknown_architecture_is_described_by_its_own_keys():
    told = of(described("brand-new", block_count=12, expert_count=8, expert_used_count=2))
    assert (told.architecture, told.layers, told.experts) == ("brand-new", 12, 8)
    assert len(told.kinds) == 1 and "2 of 8 experts" in told.kinds[0]


@pytest.mark.parametrize(("trained", "window"), [(8192, 4096), (4096, None), (None, 4096)])
def test_a_window_counts_if_it_is_shorter_than_the_context(trained, window):
    context = {} if trained is None else {"context_length": trained}
    told = of(described("llama", block_count=32, attention__sliding_window=4096, **context))
    assert told.window == window
    assert ("Dense" in told.kinds[0]) == (window is None)


def test_heads_that_differ_between_layers():
    told = of(
        described("lfm2", block_count=2, attention__head_count_kv=[0, 8], attention__head_count=32)
    )
    assert (told.heads, told.kv_heads) == (32, 8)


# the chat template


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, (False, False, False)),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", (True, False, False)),
        ("{% if tools %}{{ tools | tojson }}{% endif %}", (True, True, False)),
        ("{% if enable_thinking is false %}<think>\n\n</think>{% endif %}", (True, False, True)),
        ("[THINK]", (True, False, True)),
        ("{{ 'my toolset thinks' }}", (True, False, False)),
    ],
)
def test_templates_with_tools_and_thinking(source, expected):
    pairs = described("llama")
    if source is not None:
        pairs.append(pair("tokenizer.chat_template", STRING, source))
    told = of(pairs)
    assert (told.template, told.tools, told.thinking) == expected


def test_a_separate_template_for_tools():
    pairs = [
        pair("tokenizer.chat_template", STRING, "x"),
        pair("tokenizer.chat_template.tool_use", STRING, "y"),
    ]
    assert of([*described("llama"), *pairs]).tools


@pytest.mark.parametrize("names", [("tool_use", "default"), ("rag", "chat")])
def test_the_conversation_template_of_several_counts(names):
    pairs = [pair(f"tokenizer.chat_template.{n}", STRING, f"<think> {n}") for n in names]
    told = of([*described("llama"), *pairs])
    assert told.template and told.thinking
    assert template_source(model_of(pairs).header) == f"<think> {names[1]}"


def test_a_blank_template_counts_as_none():
    assert not of([*described("llama"), pair("tokenizer.chat_template", STRING, " \n")]).template


# problems


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([], "This has no text under the key general.architecture"),
        (
            [pair("general.architecture", U32, 7)],
            "This has no text under the key general.architecture",
        ),
        (described("llama"), "The key llama.block_count is missing."),
        (described("clip"), "This is a projector for images or sound, not a model."),
        (
            [*described("llama"), pair("general.type", STRING, "adapter")],
            "This is a LoRA adapter, not a model.",
        ),
        (
            described("llama", block_count="32"),
            "llama.block_count should be a whole number.",
        ),
        (
            [*described("llama", block_count=1), pair("llama.context_length", BOOL, True)],
            "llama.context_length should be a whole number.",
        ),
        (
            [*described("llama", block_count=1), pair(b"\xff", U32, 1)],
            "Some of its keys are not UTF-8",
        ),
    ],
)
def test_a_missing_or_wrong_key_is_named(pairs, problem):
    told = of(pairs)
    assert any(line.startswith(problem) for line in told.problems), told.problems


def test_facts_of_a_file_without_tensors():
    data = gguf(described("llama", block_count=1), ())
    source = OpenFile("x.gguf", len(data), lambda offset, n: data[offset : offset + n])
    told = facts(open_model("x.gguf", lambda name: source))
    assert told.problems[0].startswith("This is a header without tensors")
    assert (told.parameters, told.bits_per_weight, told.quant, told.mix) == (0, None, "", {})


def test_facts_of_a_big_endian_file():
    pairs = [
        pair("general.architecture", STRING, "llama", ">"),
        pair("llama.block_count", U32, 1, ">"),
    ]
    assert of(pairs, order=">").problems[0].startswith("This is a big-endian file")


def test_a_tensor_of_an_unknown_type():
    infos = ggufs.tensor("t", (32, 2), 999, 0)
    pairs = described("llama", block_count=1)
    data = ggufs.start(1, len(pairs)) + b"".join([*pairs, infos]) + bytes(512)
    source = OpenFile("x.gguf", len(data), lambda offset, n: data[offset : offset + n])
    told = facts(open_model("x.gguf", lambda name: source))
    assert len(told.problems) == 1 and "type 999" in told.problems[0]
    assert (told.parameters, told.bits_per_weight) == (64, None)


@pytest.mark.parametrize("count", [0, 1, 513, 2**32 - 1])
def test_any_number_of_layers_is_handled(count):
    of(described("gemma3", block_count=count, attention__sliding_window=1, nextn_predict_layers=9))
    of(described("qwen35", block_count=count, full_attention_interval=0))


@pytest.mark.slow
def test_numbers_of_any_size_are_handled(tiny):
    """Every readable header has facts."""
    told = 0
    for seed in range(600):
        chance = random.Random(seed)
        data = bytearray(tiny(chance.choice(["swa", "hybrid", "mla", "moe"])).read_bytes()[:65_536])
        at = chance.randrange(24, 2000)
        data[at : at + 4] = struct.pack(
            "<I", chance.choice([0, 1, 7, 2**31, chance.getrandbits(32)])
        )
        source = OpenFile(
            "x.gguf", 1 << 30, lambda offset, n, data=data: bytes(data[offset : offset + n])
        )
        with contextlib.suppress(GgufError):
            facts(open_model("x.gguf", lambda name, source=source: source))
            told += 1
    assert told > 30


def test_a_part_has_the_name_of_the_model():
    data = gguf(described("llama"))
    source = OpenFile("m-Q4-00001-of-00001.gguf", None, lambda offset, n: data[offset : offset + n])
    assert facts(open_model(source.name, lambda name: source)).name == "m-Q4"
