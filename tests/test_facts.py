"""Facts: what is told of real, tiny and made-up models, and of files that say it wrongly."""

import contextlib
import random
import struct

import ggufs
import pytest
from ggufs import ARRAY, BOOL, STRING, U32, described, gguf, pair

from lcp.errors import GgufError
from lcp.modelfile.facts import facts, template_source
from lcp.modelfile.layers import layers
from lcp.modelfile.parts import OpenFile, local, open_model

MATRIX = ("blk.0.ffn_up.weight", (256, 2))


def model_of(pairs, tensors=((*MATRIX, 0),), **options):
    data = gguf(pairs, tensors, **options)
    source = OpenFile("x.gguf", len(data), lambda offset, n: data[offset : offset + n])
    return open_model("x.gguf", lambda name: source)


def of(pairs, *tensors, **options):
    return facts(model_of(pairs, tensors or ((*MATRIX, 0),), **options))


def test_the_real_model(smollm2):
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
    assert told.kinds == ("Dense: each layer uses all its weights and keeps the whole context.",)
    assert told.problems == ()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("dense", "Dense: each layer uses all its weights and keeps the whole context."),
        (
            "swa",
            "Sliding window: 1 of 2 layers keep the whole context; the rest a 32-token window.",
        ),
        ("recurrent", "Recurrent: a fixed state instead of a cache; a longer context needs no"),
        ("hybrid", "Hybrid: 1 of 2 layers keep the whole context; the rest a fixed state."),
        ("hybrid_mrope", "Hybrid: 1 of 2 layers keep the whole context; the rest a fixed state."),
        ("mrope", "Dense: each layer uses all its weights and keeps the whole context."),
        ("mla", "Keys and values are one small vector a token (multi-head latent attention)."),
        ("moe", "Mixture of experts: 2 of 4 experts work on a token in each layer."),
    ],
)
def test_tiny_models_of_each_kind(tiny, kind, line):
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


def test_experts_that_are_a_tensor_each():
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
        (15, [Q8_0], "Q8_0"),  # it was copied from another conversion
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
def test_the_quant_is_what_the_matrices_bear_out(file_type, matrices, quant):
    ggufs._BLOCKS.setdefault(21, (256, 110))
    pairs = described("llama", block_count=1)
    if file_type is not None:
        pairs.append(pair("general.file_type", U32, file_type))
    told = of(pairs, *((f"m{i}", (256, 4), kind) for i, kind in enumerate(matrices)))
    assert told.quant == quant


def test_the_mix_and_the_bits():
    told = of(described("llama"), ("a", (256,), F32), ("b", (256, 4), Q4_K), ("c", (256, 2), Q8_0))
    assert told.mix == {"F32": 1024, "Q4_K": 576, "Q8_0": 544}
    assert told.bits_per_weight == pytest.approx(8 * (1024 + 576 + 544) / 1792)


# what layers keep

GEMMA3 = described("gemma3", block_count=48, attention__sliding_window=1024)
ARRAY_KV = [0, 0, 0, 4]


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        (GEMMA3, "8 of 48 layers keep the whole context; the rest a 1,024-token window."),
        (described("gemma2", block_count=26), "13 of 26 layers keep the whole context; the rest a"),
        (
            described("gpt-oss", block_count=24, attention__sliding_window=128),
            "12 of 24 layers keep the whole context; the rest a 128-token window.",
        ),
        (
            described(
                "laguna", block_count=9, attention__sliding_window=512,
                attention__sliding_window_pattern=3,
            ),
            "3 of 9 layers keep the whole context; the rest a 512-token window.",
        ),
        (
            described(
                "gemma4", block_count=4, attention__sliding_window=512,
                attention__sliding_window_pattern=[True, True, True, False],
                attention__shared_kv_layers=1,
            ),
            "0 of 4 layers keep the whole context; the rest a 512-token window or nothing of",
        ),
        (
            described("qwen3next", block_count=48, ssm__state_size=128),
            "Hybrid: 12 of 48 layers keep the whole context; the rest a fixed state.",
        ),
        (
            described("jamba", block_count=4, attention__head_count_kv=ARRAY_KV),
            "Hybrid: 1 of 4 layers keep the whole context; the rest a fixed state.",
        ),
        (
            described(
                "nemotron_h", block_count=4, attention__head_count_kv=ARRAY_KV,
                feed_forward_length=[0, 64, 0, 0],
            ),
            "Hybrid: 1 of 4 layers keep the whole context; the rest a fixed state or nothing of",
        ),
        (
            described("deci", block_count=4, attention__head_count_kv=ARRAY_KV),
            "1 of 4 layers keep the whole context; the rest nothing of their own.",
        ),
        (described("falcon-h1", block_count=4), "Hybrid: each layer keeps the whole context and a"),
        (described("mamba", block_count=64), "Recurrent: a fixed state instead of a cache;"),
        (
            described("llama", block_count=32, context_length=8192, attention__sliding_window=4096),
            "The file names a sliding window of 4,096 tokens.",
        ),
        (
            described(
                "deepseek2", block_count=61, expert_count=256, expert_used_count=8,
                attention__key_length_mla=192,
            ),
            "Keys and values are one small vector a token (multi-head latent attention).",
        ),
        (described("glm4moe", block_count=47, nextn_predict_layers=1), "Dense: "),
    ],
)  # fmt: skip
def test_what_kind_of_model_it_is(pairs, line):
    told = of(pairs)
    assert any(line in told_line for told_line in told.kinds), told.kinds


@pytest.mark.parametrize(
    ("arch", "period", "whole"),
    [("gemma3", None, [5]), ("gemma3", 3, [2, 5]), ("laguna", 3, [0, 3, 6]), ("gpt-oss", 0, [])],
)
def test_which_layers_keep_the_whole_context(arch, period, whole):
    pattern = {} if period is None else {"attention__sliding_window_pattern": period}
    pairs = described(arch, block_count=8, attention__sliding_window=64, **pattern)
    kept = layers(model_of(pairs).header.values).kept
    assert [i for i, what in enumerate(kept) if what == "whole"] == whole
    assert set(kept) <= {"whole", "window"}


def test_layers_that_only_draft_are_none():
    values = model_of(described("glm4moe", block_count=47, nextn_predict_layers=1)).header.values
    assert layers(values).kept == ("whole",) * 46


def test_an_unknown_architecture_is_told_by_what_it_says():
    told = of(described("brand-new", block_count=12, expert_count=8, expert_used_count=2))
    assert told.architecture == "brand-new"
    assert (told.layers, told.experts) == (12, 8)
    assert told.kinds == (
        "Mixture of experts: 2 of 8 experts work on a token in each layer.",
        "What its layers keep of the context is not known for this architecture.",
    )
    told = of(
        described(
            "brand-new", block_count=4, attention__sliding_window=64,
            attention__sliding_window_pattern=[True, False, True, False],
        )
    )  # fmt: skip
    assert told.kinds == (
        "Sliding window: 2 of 4 layers keep the whole context; the rest a 64-token window.",
    )
    assert told.window == 64


def test_heads_that_differ_from_layer_to_layer():
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
def test_the_template(source, expected):
    pairs = described("llama")
    if source is not None:
        pairs.append(pair("tokenizer.chat_template", STRING, source))
    told = of(pairs)
    assert (told.template, told.tools, told.thinking) == expected


def test_a_template_for_tools_of_its_own():
    pairs = [
        pair("tokenizer.chat_template", STRING, "x"),
        pair("tokenizer.chat_template.tool_use", STRING, "y"),
    ]
    assert of([*described("llama"), *pairs]).tools


@pytest.mark.parametrize("names", [("tool_use", "default"), ("rag", "chat")])
def test_of_several_named_templates_the_one_for_a_talk_counts(names):
    pairs = [pair(f"tokenizer.chat_template.{n}", STRING, f"<think> {n}") for n in names]
    told = of([*described("llama"), *pairs])
    assert told.template and told.thinking
    assert template_source(model_of(pairs).header.values) == f"<think> {names[1]}"


def test_a_blank_template_is_none():
    assert not of([*described("llama"), pair("tokenizer.chat_template", STRING, " \n")]).template


# what is wrong


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
def test_a_key_that_lacks_or_lies_is_named(pairs, problem):
    told = of(pairs)
    assert any(line.startswith(problem) for line in told.problems), told.problems


def test_a_file_without_tensors():
    data = gguf(described("llama", block_count=1), ())
    source = OpenFile("x.gguf", len(data), lambda offset, n: data[offset : offset + n])
    told = facts(open_model("x.gguf", lambda name: source))
    assert told.problems[0].startswith("This is a header without tensors")
    assert (told.parameters, told.bits_per_weight, told.quant, told.mix) == (0, None, "", {})


def test_a_big_endian_file():
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
    assert told.problems == (
        "Its tensors have the unknown type 999: a newer llama.cpp may read it.",
    )
    assert (told.parameters, told.bits_per_weight) == (64, None)


@pytest.mark.parametrize("count", [0, 1, 513, 2**32 - 1])
def test_any_number_of_layers_is_survived(count):
    of(described("gemma3", block_count=count, attention__sliding_window=1, nextn_predict_layers=9))
    of(described("qwen35", block_count=count, full_attention_interval=0))


def test_numbers_of_any_size_are_survived(tiny):
    """Facts are told of every header that can be read."""
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


def test_a_part_is_called_by_the_name_of_the_model():
    data = gguf(described("llama"))
    source = OpenFile("m-Q4-00001-of-00001.gguf", None, lambda offset, n: data[offset : offset + n])
    assert facts(open_model(source.name, lambda name: source)).name == "m-Q4"


def test_arrays_of_a_wrong_length_are_left_alone():
    pairs = described("jamba", block_count=4, attention__head_count_kv=[0, 1])
    assert layers(model_of(pairs).header.values).kept == ("whole",) * 4
    pairs = [
        *described("jamba", block_count=4),
        pair("jamba.attention.head_count_kv", ARRAY, (STRING, ["a"] * 4)),
    ]
    assert layers(model_of(pairs).header.values).kept == ("whole",) * 4
