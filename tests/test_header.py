"""Header: what is read, what is refused with which error, and how little it costs."""

import random
import resource
import struct
import sys
import time
import tracemalloc
from contextlib import suppress

import forked_child
import ggufs
import pytest
from ggufs import ARRAY, BOOL, F32, F64, I8, I32, STRING, U8, U16, U32, U64, gguf, pair, start
from hypothesis import given
from hypothesis import strategies as st

from lcp import child_process
from lcp.engine.llama_library import library
from lcp.errors import GgufError, LcpError
from lcp.modelfile.header import GgufArray, read_header
from lcp.modelfile.memory_needs import exact

ARCH = pair("general.architecture", STRING, "llama")
HUGE = 2**62
SECONDS, BYTES = 1, 200 << 20


def reader(data):
    """The `read` function of a file with these bytes; `calls` are its calls."""

    calls = []

    def read(offset, n):
        assert offset >= 0 and n >= 0
        calls.append((offset, n))
        return data[offset : offset + n]

    read.calls = calls
    return read


def header_of(data, size=True, **options):
    return read_header(reader(data), len(data) if size else None, "x.gguf", **options)


def quickly(data, size=True):
    """The header, or None if it is refused; within a second in both cases."""
    begin = time.process_time()
    try:
        return header_of(data, size)
    except GgufError as error:
        assert str(error).startswith("x.gguf ")
        return None
    finally:
        assert time.process_time() - begin < SECONDS


def cheaply(data, size=True):
    """The same, with at most 200 MiB of memory; measuring makes it several times slower."""
    tracemalloc.start()
    try:
        return quickly(data, size)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < BYTES


def raw_pair(key, kind, rest=b""):
    return ggufs.text(key) + struct.pack("<I", kind) + rest


def one_pair(raw):
    return start(0, 1) + raw + bytes(64)


def one_tensor(*args, **options):
    return start(1, 1) + ARCH + ggufs.tensor(*args, **options) + bytes(4096)


NESTED = raw_pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ", U8, 1) + b"\0")
DEEP = raw_pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 5000)

MALFORMED = {
    "empty": (b"", "x.gguf is empty"),
    "3 bytes": (b"GGU", "has only 3 bytes"),
    "magic only": (b"GGUF", "has only 4 bytes"),
    "half a header": (start(1, 1)[:14], "has only 14 bytes"),
    "wrong magic": (b"ABCD" * 20, '"ABCD"'),
    "html": (b"<!DOCTYPE html><html>", "web page"),
    "lower html": (b"\n<html><head>" + b" " * 50, "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "ggjt": (b"tjgg\3\0\0\0" + bytes(40), "GGML"),
    "ggla": (b"algg\1\0\0\0" + bytes(40), "LoRA adapter"),
    "safetensors": (b"\x40" + bytes(7) + b'{"__metadata__":{}}', "safetensors"),
    "zip": (b"PK\3\4" + bytes(40), "zip"),
    "zeros": (bytes(4096), "zeros"),
    "json": (b'{"error":"Repository not found"}', "JSON"),
    "version 0": (start(0, 0, 0) + bytes(64), "GGUF version 0"),
    "version 1": (start(0, 0, 1), "GGUF version 1"),
    "version 4": (start(0, 0, 4), "Update lcp"),
    "2^63 keys": (start(0, 2**63) + bytes(64), "9,223,372,036,854,775,808 keys"),
    "10^6 keys": (start(0, 10**6) + bytes(64), "1,000,000 keys"),
    "more keys than bytes": (start(0, 9) + bytes(64), "the list of its 9 keys needs 117 bytes"),
    "2^63 tensors": (start(2**63, 0) + bytes(64), "9,223,372,036,854,775,808 tensors"),
    "10^6 tensors": (
        start(10**6, 0) + bytes(64),
        "ends in the middle of its header, after 88 bytes: the list of its 1,000,000 tensors",
    ),
    "string 2^62": (
        one_pair(raw_pair("k", STRING, struct.pack("<Q", HUGE))),
        "k claims to be 4,611,686,018,427,387,904 bytes long.",
    ),
    "string 2^64-1": (
        one_pair(raw_pair("k", STRING, struct.pack("<Q", 2**64 - 1))),
        "k claims to be 18,446,744,073,709,551,615 bytes long.",
    ),
    "string beyond the end": (
        one_pair(raw_pair("k", STRING, struct.pack("<Q", 1000))),
        "ends in the middle of its header, after 109 bytes: k needs 1,000 bytes and 64 are left.",
    ),
    "key 2^62": (
        start(0, 1) + struct.pack("<Q", HUGE) + bytes(64),
        "key 1 of 1 claims to be 4,611,686,018,427,387,904 bytes long.",
    ),
    "array of 2^63 strings": (
        one_pair(raw_pair("k", ARRAY, ggufs.array(STRING, 2**63))),
        "k claims to be an array of 9,223,372,036,854,775,808.",
    ),
    "array of 2^62 bytes": (
        one_pair(raw_pair("k", ARRAY, ggufs.array(U8, HUGE))),
        "k claims to be an array of 4,611,686,018,427,387,904.",
    ),
    "array beyond the end": (
        one_pair(raw_pair("k", ARRAY, ggufs.array(U32, 1000))),
        "the array k of 1,000 needs 4,000 bytes and 64 are left.",
    ),
    "a text in an array": (
        one_pair(raw_pair("k", ARRAY, ggufs.array(STRING, 1) + struct.pack("<Q", HUGE))),
        "k claims to be 4,611,686,018,427,387,904 bytes long.",
    ),
    "the tenth text in a vocabulary": (
        one_pair(
            raw_pair("tokenizer.x", ARRAY, ggufs.array(STRING, 10) + ggufs.text("a") * 9)
            + struct.pack("<Q", HUGE)
        ),
        "tokenizer.x claims to be 4,611,686,018,427,387,904 bytes",
    ),
    "nested arrays": (one_pair(NESTED), "k is an array of arrays, which no model has."),
    "5000 arrays deep": (one_pair(DEEP), "k is an array of arrays, which no model has."),
    "unknown value type": (one_pair(raw_pair("k", 99)), "k has a value of the unknown type 99."),
    "unknown element type": (
        one_pair(raw_pair("k", ARRAY, ggufs.array(99, 1))),
        "k is an array of the unknown type 99.",
    ),
    "duplicate key": (start(0, 2) + ARCH * 2, "general.architecture appears twice"),
    "empty key": (one_pair(pair("", U32, 1)), "a key is empty."),
    "alignment 0": (
        one_pair(pair("general.alignment", U32, 0)), "alignment is 0,",
    ),
    "alignment 24": (
        one_pair(pair("general.alignment", U32, 24)), "alignment is 24,",
    ),
    "alignment 2^30": (
        one_pair(pair("general.alignment", U32, 2**30)), "alignment is 1,073,741,824,",
    ),
    "alignment of a wrong type": (
        one_pair(pair("general.alignment", U64, 32)), "general.alignment",
    ),
    "alignment a list": (
        one_pair(pair("general.alignment", ARRAY, (U32, [32]))), "general.alignment",
    ),
    "5 dimensions": (
        one_tensor("t", (1,) * 5), "t has 5 dimensions",
    ),
    "2^31 dimensions": (one_tensor("t", (1,), dims=2**31), "the tensor t has 2,147,483,648 dim"),
    "dimensions that overflow": (
        one_tensor("t", (2**33, 2**33)), "the tensor t has an impossible shape, [8589934592, 85",
    ),
    "a dimension of 2^63": (one_tensor("t", (2**63,)), "the tensor t has an impossible shape"),
    "a dimension of 0": (one_tensor("t", (32, 0)), "the tensor t has an impossible shape, [32, 0]"),
    "half a block": (
        one_tensor("t", (33,), ggufs.Q4_0_TENSOR),
        "blocks of Q4_0",
    ),
    "a long tensor name": (
        one_tensor("t" * 64, (1,)), "the name of tensor 1 of 1 claims to be 64 bytes long.",
    ),
    "a duplicate tensor": (
        start(2, 0) + ggufs.tensor("t", (8,)) * 2 + bytes(256), "t appears twice",
    ),
    "offset past the end": (
        one_tensor("t", (8,), offset=1 << 40),
        "t is at 1,099,511,627,776, not at 0",
    ),
    "offset that wraps": (one_tensor("t", (8,), offset=2**64 - 32), "t is at 18,446,"),
    "unaligned offset": (
        one_tensor("t", (8,), offset=7), "the data of t is not aligned to 32 bytes.",
    ),
    "overlapping tensors": (
        start(2, 0) + ggufs.tensor("t", (16,)) + ggufs.tensor("u", (16,), offset=32) + bytes(256),
        "u is at 32, not at 64",
    ),
    "a gap between tensors": (
        start(2, 0) + ggufs.tensor("t", (16,)) + ggufs.tensor("u", (16,), offset=96) + bytes(256),
        "u is at 96, not at 64",
    ),
    "cut within the keys": (
        gguf([ARCH, pair("a", STRING, "b" * 99)])[:99], "ends in the middle of its header",
    ),
    "cut within the tensors": (gguf([ARCH])[:110], "ends in the middle of its header, after 110"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("data", "fact"), MALFORMED.values(), ids=MALFORMED)
def test_the_error_of_a_malformed_file_names_the_fault(data, fact):
    assert cheaply(data) is None
    with pytest.raises(GgufError) as error:
        header_of(data)
    assert fact in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("data", [case[0] for case in MALFORMED.values()], ids=MALFORMED)
def test_a_malformed_file_of_unknown_size_is_refused(data):
    assert cheaply(data, size=False) is None


def test_a_file_truncated_in_its_header_is_refused():
    whole = gguf([ARCH, pair("tokenizer.ggml.tokens", ARRAY, (STRING, ["a"] * 20))], data=False)
    header_of(whole)
    end = len(whole.rstrip(b"\0"))
    for n in range(24, end - 8):
        with pytest.raises(GgufError, match="ends in the middle of its header"):
            header_of(whole[:n])


# what is accepted


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3_in_both_byte_orders(order, version):
    pairs = [
        pair("general.architecture", STRING, "llama", order),
        pair("x", ARRAY, (U16, [1, 2]), order),
    ]
    header = header_of(gguf(pairs, order=order, version=version))
    assert (header.version, header.endian) == (version, "little" if order == "<" else "big")
    assert header.values == {"general.architecture": "llama", "x": GgufArray(U16, 2, (1, 2))}
    assert [(t.name, t.shape, t.offset) for t in header.tensors] == [
        ("a", (32,), 0), ("b", (32, 2), 128),
    ]  # fmt: skip


def test_the_start_of_the_data():
    header = header_of(gguf([ARCH, pair("general.alignment", U32, 32)]))
    assert header.data_start % 32 == 0
    assert header.data_start + header.data_size == len(
        gguf([ARCH, pair("general.alignment", U32, 32)])
    )
    assert header.data_size == 128 + 256


def test_a_bool_of_seven_is_true_and_an_empty_array_is_one():
    header = header_of(one_pair(raw_pair("b", BOOL, b"\7")).rstrip(b"\0") + bytes(64))
    assert header.values["b"] is True
    assert header_of(gguf([pair("e", ARRAY, (STRING, []))])).values["e"] == GgufArray(STRING, 0, ())


def test_a_tensor_without_dimensions_is_one_number():
    (tensor,) = header_of(one_tensor("t", ())).tensors
    assert (tensor.elements, tensor.n_bytes, tensor.quant) == (1, 4, "F32")


def test_text_that_is_not_utf8_is_read():
    pairs = [
        pair(b"k\xff", STRING, b"a\xffb"),
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, [b"\xff"])),
    ]
    header = header_of(gguf(pairs))
    assert header.values["k\ufffd"] == "a\ufffdb"
    assert header.values["tokenizer.ggml.tokens"].first == ("\ufffd",)


@pytest.mark.parametrize("kind", [999, 4])
def test_a_tensor_of_an_unknown_type_does_not_hide_others(kind):
    tensors = [ggufs.tensor("t", (32,), kind, 0), ggufs.tensor("u", (32,), 0, 4096)]
    header = header_of(start(2, 1) + ARCH + b"".join(tensors) + bytes(8192))
    first, second = header.tensors
    assert (first.quant, first.n_bytes, first.elements) == (f"type {kind}", None, 32)
    assert second.n_bytes == 128
    assert header.values == {"general.architecture": "llama"}
    assert header.data_size == 4096 + 128


def test_no_keys_and_no_tensors():
    header = header_of(start(0, 0))
    assert (header.values, header.tensors, header.data_start) == ({}, (), 24)


# what is kept


def test_arrays_keep_all_of_1024_numbers_or_the_first_eight():
    pairs = [
        pair("short", ARRAY, (U32, list(range(1024)))),
        pair("long", ARRAY, (U32, list(range(1025)))),
        pair("words", ARRAY, (STRING, [str(i) for i in range(20)])),
        pair("after", U8, 7),
    ]
    values = header_of(gguf(pairs)).values
    assert values["short"] == GgufArray(U32, 1024, tuple(range(1024)))
    assert values["long"] == GgufArray(U32, 1025, tuple(range(8)))
    assert values["words"] == GgufArray(STRING, 20, tuple("01234567"))
    assert values["after"] == 7


def test_the_raw_pairs_leave_out_vocabulary_and_split():
    pairs = [
        ARCH,
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, ["a"] * 100)),
        pair("llama.block_count", U32, 2),
        pair("split.count", U16, 3),
        pair("general.tags", ARRAY, (STRING, ["x"] * 100)),
    ]
    header = header_of(gguf(pairs))
    assert header.keys == pairs[0] + pairs[2] + pairs[4]
    assert header.n_keys == 3
    assert header.infos == b"".join(ggufs.laid_out([("a", (32,), 0), ("b", (32, 2), 0)])[0])


@pytest.mark.slow
def test_pairs_and_infos_make_a_valid_header():
    pairs = [ARCH, pair("general.tags", ARRAY, (STRING, ["x"] * 300_000)), pair("n", U32, 2)]
    first = header_of(gguf([*pairs, pair("tokenizer.ggml.model", STRING, "x" * 2_000_000)]))
    made = start(len(first.tensors), first.n_keys) + first.keys + first.infos
    second = header_of(made + bytes(-len(made) % 32))
    assert second.values.items() <= first.values.items()
    assert second.tensors == first.tensors


# what it costs


def vocabulary(tokens, merges):
    """A header like those of large models."""
    words = [f"token {i}" for i in range(tokens)]
    return gguf([
        ARCH,
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, words)),
        pair("tokenizer.ggml.scores", ARRAY, (F32, [0.0] * tokens)),
        pair("tokenizer.ggml.token_type", ARRAY, (I32, [1] * tokens)),
        pair("tokenizer.ggml.merges", ARRAY, (STRING, words[:1000] * (merges // 1000))),
        pair("llama.block_count", U32, 32),
    ])  # fmt: skip


@pytest.mark.slow
def test_a_large_vocabulary_is_skipped():
    data = vocabulary(128_000, 280_000)
    tracemalloc.start()
    header = header_of(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert header.values["tokenizer.ggml.tokens"].count == 128_000
    assert header.values["llama.block_count"] == 32
    assert peak < 3 * len(data)  # blocks of the file, no lists
    begin = time.process_time()
    header_of(data)
    assert time.process_time() - begin < 3  # about 0.1 s on an idle machine


@pytest.mark.slow
def test_reads_are_few_and_growing():
    data = vocabulary(128_000, 280_000)
    read = reader(data)
    read_header(read, len(data), "x.gguf")
    sizes = [n for _, n in read.calls]
    assert sizes == [1 << 20, 2 << 20, 4 << 20, 8 << 20][: len(sizes)]
    ends = [0, *(offset + n for offset, n in read.calls)]
    gaps = [offset - end for (offset, _), end in zip(read.calls, ends, strict=False)]
    assert {*gaps} == {0}  # forward, and nothing twice


@pytest.mark.slow
def test_the_size_of_a_header_is_limited():
    data = vocabulary(128_000, 280_000)
    with pytest.raises(GgufError, match=r"1\.05 MB"):
        header_of(data, limit=1 << 20)
    with pytest.raises(GgufError, match=r"1\.05 MB"):
        header_of(data, size=False, limit=1 << 20)


@pytest.mark.slow
def test_the_size_of_other_keys_is_limited():
    many = [pair(f"k{i}", STRING, b"x" * (4 << 20)) for i in range(10)]
    with pytest.raises(GgufError, match="its keys up to k7 have 33,554,"):
        header_of(gguf(many))
    array = pair("k", ARRAY, (U64, [0] * (5 << 20)))
    with pytest.raises(GgufError, match="its keys up to k have 41,943,"):
        header_of(gguf([array]))


# any values

_RANGES = {
    U8: (0, 2**8 - 1), I8: (-(2**7), 2**7 - 1), U16: (0, 2**16 - 1), U32: (0, 2**32 - 1),
    I32: (-(2**31), 2**31 - 1), U64: (0, 2**64 - 1),
}  # fmt: skip
scalars = st.one_of(
    *(st.tuples(st.just(kind), st.integers(*ends)) for kind, ends in _RANGES.items()),
    st.tuples(st.just(BOOL), st.booleans()),
    st.tuples(st.just(F32), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(F64), st.floats(allow_nan=False)),
    st.tuples(st.just(STRING), st.text()),
)
arrays = st.sampled_from([*_RANGES, STRING]).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.lists(st.text() if kind == STRING else st.integers(*_RANGES[kind]), max_size=20),
    )
)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda key: key != "general.alignment"),
        scalars | st.tuples(st.just(ARRAY), arrays),
        max_size=12,
    ),
    st.sampled_from("<>"),
)
def test_written_headers_are_read_back(pairs, order):
    data = gguf([pair(key, *it, order) for key, it in pairs.items()], order=order)
    expected = {}
    for key, (kind, it) in pairs.items():
        if kind == ARRAY:
            kind, elements = it
            shown = elements[:8] if kind == STRING else elements
            it = GgufArray(kind, len(elements), tuple(shown))
        expected[key] = it
    assert header_of(data).values == expected


# any damage


def mutated(seed, data):
    """The bytes with one to four changes, as by disks, networks and attackers."""
    chance = random.Random(seed)
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(max(1, min(len(data), 65_536)))
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            data[at : at + 8] = struct.pack(
                "<Q", chance.choice([0, 1, HUGE, 2**63, 2**64 - 1, 999])
            )
        elif kind == 2:
            del data[at : at + chance.randrange(1, 64)]
        elif kind == 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 64))
        elif kind == 4:
            del data[at:]
        else:
            where = chance.randrange(len(data) + 1)
            data[where:where] = data[at : at + 32]
    return bytes(data)


def whole_headers(tiny, smollm2):
    """The headers to damage: up to 64 kB of valid ones."""
    kinds = ("dense", "swa", "recurrent", "hybrid", "mla", "moe")
    originals = []
    for path in (*map(tiny, kinds), smollm2):
        with path.open("rb") as file:
            originals.append(file.read(65_536))
    originals.append(gguf([ARCH, *ggufs.described("x", a=[1, 2], b="c")[1:]]))
    return originals


def survives(first, last, originals, parse=cheaply):
    """Whether damaged headers are read or refused, and nothing else."""
    read = 0
    for seed in range(first, last):
        data = mutated(seed, originals[seed % len(originals)])
        read += parse(data, size=seed % 3 > 0) is not None
    return read


@pytest.mark.slow
def test_damaged_headers_are_read_or_refused(tiny, smollm2):
    assert 0 < survives(0, 300, whole_headers(tiny, smollm2)) < 300


@pytest.mark.slow
def test_ten_thousand_damaged_headers_are_read_or_refused(tiny, smollm2):
    originals = whole_headers(tiny, smollm2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0 < survives(300, 10_000, originals, quickly) < 9700
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB; bytes on a Mac
    assert grown < BYTES >> (0 if sys.platform == "darwin" else 10)


def difference(header, whole):
    """In how many values and tensors two headers differ."""
    values = [key for key in header.values.keys() | whole.values.keys()
              if header.values.get(key) != whole.values.get(key)]  # fmt: skip
    return len(values) + len(set(header.tensors) ^ set(whole.tensors))


@pytest.mark.slow
def test_damaged_headers_that_lcp_accepts_crash_only_the_child(tiny, smollm2, monkeypatch):
    """Of 8,000 damaged headers, use the 200 readable ones that differ most from the originals."""
    originals = [(data, quickly(data, False)) for data in whole_headers(tiny, smollm2)]
    read = []
    for seed in range(8_000):
        data, whole = originals[seed % len(originals)]
        if not whole:  # SmolLM2's own header is longer
            continue
        with suppress(GgufError):
            header = header_of(mutated(seed, data), False)
            if far := difference(header, whole):
                read.append((far, seed, header))
    read.sort(key=lambda one: one[:2], reverse=True)
    assert len(read) >= 200
    library()
    monkeypatch.setattr(child_process, "run", forked_child.run)
    assert all(answers(header) for _, _, header in read[:200])


def answers(header):
    """Whether llama.cpp gives figures for a header, or lcp an error."""
    try:
        return exact(header, [(512, "f16")]).source == "exact"
    except LcpError as error:
        return bool(str(error))
