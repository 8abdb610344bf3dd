"""Which file of a repository a name means, in real listings."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcp import gguf_kinds
from lcp.downloads.repo_files import (
    BEST_FIRST,
    RepoFile,
    choose,
    is_cut,
    models,
    projectors,
    quant_of,
    rank,
)
from lcp.errors import ModelNotFound

GB = 10**9
FITS = "Chose {}: the best quant that fits."


def listing(text):
    """Lines of "path size-in-GB" as the tree of a repository."""
    rows = [line.split() for line in text.strip().splitlines()]
    return [
        RepoFile(path, int(float(size) * GB), f"{n:064x}") for n, (path, size) in enumerate(rows)
    ]


BARTOWSKI = listing("""
.gitattributes 0.000003
README.md 0.00001
Llama-3.2-3B-Instruct-IQ3_M.gguf 1.6
Llama-3.2-3B-Instruct-IQ4_XS.gguf 1.83
Llama-3.2-3B-Instruct-Q3_K_L.gguf 1.82
Llama-3.2-3B-Instruct-Q3_K_XL.gguf 1.91
Llama-3.2-3B-Instruct-Q4_0.gguf 1.92
Llama-3.2-3B-Instruct-Q4_0_4_4.gguf 1.92
Llama-3.2-3B-Instruct-Q4_0_8_8.gguf 1.92
Llama-3.2-3B-Instruct-Q4_K_L.gguf 2.11
Llama-3.2-3B-Instruct-Q4_K_M.gguf 2.02
Llama-3.2-3B-Instruct-Q4_K_S.gguf 1.93
Llama-3.2-3B-Instruct-Q5_K_M.gguf 2.32
Llama-3.2-3B-Instruct-Q6_K.gguf 2.64
Llama-3.2-3B-Instruct-Q6_K_L.gguf 2.74
Llama-3.2-3B-Instruct-Q8_0.gguf 3.42
Llama-3.2-3B-Instruct-f16.gguf 6.43
Llama-3.2-3B-Instruct.imatrix 0.003
""")
UNSLOTH = listing("""
BF16/Qwen3.6-27B-BF16-00001-of-00002.gguf 49.9
BF16/Qwen3.6-27B-BF16-00002-of-00002.gguf 4.1
Qwen3.6-27B-IQ4_XS.gguf 15.2
Qwen3.6-27B-Q4_K_M.gguf 16.8
Qwen3.6-27B-Q8_0.gguf 28.7
Qwen3.6-27B-UD-IQ1_S.gguf 7.8
Qwen3.6-27B-UD-Q4_K_M.gguf 16.9
Qwen3.6-27B-UD-Q4_K_XL.gguf 17.6
Qwen3.6-27B-UD-Q8_K_XL.gguf 35.3
imatrix_unsloth.gguf_file 0.01
mmproj-BF16.gguf 0.93
mmproj-F16.gguf 0.93
mmproj-F32.gguf 1.86
mtp-Qwen3.6-27B-Q8_0.gguf 0.4
""")
ONLY_DYNAMIC = listing("""
UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL-00001-of-00003.gguf 49
UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL-00002-of-00003.gguf 49
UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL-00003-of-00003.gguf 36
UD-Q4_K_XL/GLM-4.7-UD-Q4_K_XL-00001-of-00002.gguf 49
UD-Q4_K_XL/GLM-4.7-UD-Q4_K_XL-00002-of-00002.gguf 49
Q8_0/GLM-4.7-Q8_0-00001-of-00003.gguf 49
Q8_0/GLM-4.7-Q8_0-00003-of-00003.gguf 49
""")
GGML_ORG = listing("""
gemma-3-4b-it-Q4_K_M.gguf 2.49
gemma-3-4b-it-Q8_0.gguf 4.13
gemma-3-4b-it-f16.gguf 7.77
mmproj-model-f16.gguf 0.85
""")
GPT_OSS = listing("""
gpt-oss-120b-mxfp4-00001-of-00003.gguf 21
gpt-oss-120b-mxfp4-00002-of-00003.gguf 21
gpt-oss-120b-mxfp4-00003-of-00003.gguf 21
""")
THE_BLOKE = listing("""
config.json 0.000001
mistral-7b-instruct-v0.2.Q2_K.gguf 3.08
mistral-7b-instruct-v0.2.Q3_K_M.gguf 3.52
mistral-7b-instruct-v0.2.Q4_0.gguf 4.11
mistral-7b-instruct-v0.2.Q4_K_M.gguf 4.37
mistral-7b-instruct-v0.2.Q8_0.gguf 7.7
""")
CUT = listing("""
falcon-180b.Q6_K.gguf-split-a 50
falcon-180b.Q6_K.gguf-split-b 50
""")
MRADERMACHER = listing("""
Big-Model-70B.i1-IQ2_XXS.gguf 19
Big-Model-70B.i1-Q4_K_M.gguf 42.5
Big-Model-70B.i1-Q6_K.gguf.part1of2 29
Big-Model-70B.i1-Q6_K.gguf.part2of2 29
imatrix.dat 0.02
""")
QWEN = listing("""
qwen2.5-7b-instruct-fp16-00001-of-00004.gguf 3.9
qwen2.5-7b-instruct-fp16-00002-of-00004.gguf 3.9
qwen2.5-7b-instruct-fp16-00003-of-00004.gguf 3.9
qwen2.5-7b-instruct-fp16-00004-of-00004.gguf 3.5
qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf 3.99
qwen2.5-7b-instruct-q4_k_m-00002-of-00002.gguf 0.69
qwen2.5-7b-instruct-q8_0-00001-of-00003.gguf 3.9
qwen2.5-7b-instruct-q8_0-00002-of-00003.gguf 3.9
qwen2.5-7b-instruct-q8_0-00003-of-00003.gguf 0.3
""")
TWO_MODELS = listing("""
gemma-3-4b-it-Q4_0.gguf 2.37
gemma-3-4b-it-qat-Q4_0.gguf 2.37
gemma-3-4b-it-Q8_0.gguf 4.13
""")
FOLDERS = listing("""
model-Q4_K_M.gguf 4.3
old/model-Q4_K_M.gguf 4.3
Q8_0/model.gguf 7.7
""")
ADAPTERS = listing("""
adapter-F16.gguf 0.1
chat-lora-f16.gguf 0.1
mmproj-model-f16.gguf 0.85
""")
GEMMA_4 = listing("""
MTP/gemma-4-12b-it-BF16-MTP.gguf 0.9
MTP/gemma-4-12b-it-Q8_0-MTP.gguf 0.5
gemma-4-12b-it-Q4_K_M.gguf 7.1
gemma-4-12b-it-Q8_0.gguf 12.7
gemma-4-12b-it-UD-Q4_K_XL.gguf 7.3
mmproj-BF16.gguf 0.2
mtp-gemma-4-12b-it.gguf 0.5
""")
ALL = [BARTOWSKI, UNSLOTH, GGML_ORG, GPT_OSS, THE_BLOKE, MRADERMACHER, QWEN, FOLDERS]


def room(gb):
    """A machine where so many GB of weights fit, and up to half as much again page."""
    words = ("fits", "pages", "no")
    return lambda n: words[(n > gb * GB) + (n > gb * 1.5 * GB)]


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("mistral-7b-instruct-v0.2.Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("Model.i1-IQ3_XXS.gguf", "IQ3_XXS"),
        ("Model-IQ4_NL.gguf", "IQ4_NL"),
        ("Model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Model-ud-iq1_s.gguf", "UD-IQ1_S"),
        ("UD-Q4_K_XL/Model-00001-of-00003.gguf", "UD-Q4_K_XL"),
        ("quants/Q8_0/model.gguf", "Q8_0"),
        ("Q8_0/model-Q4_K_M.gguf", "Q4_K_M"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("gemma-3-4b-it-qat-q4_0.gguf", "Q4_0"),
        ("gemma-3-4b-it-q4_0.gguf", "Q4_0"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "F16"),
        ("model-bf16.gguf", "BF16"),
        ("model-F32.gguf", "F32"),
        ("model-Q6_K_L.gguf", "Q6_K_L"),
        ("model-TQ1_0.gguf", "TQ1_0"),
        ("Q4_K_M.gguf", "Q4_K_M"),
        ("from-Q8_0-to-Q4_K_S.gguf", "Q4_K_S"),
        ("Llama-3.2-3B-Instruct-Q4_0_4_4.gguf", None),  # llama.cpp no longer reads it
        ("Model-APEX-I-Compact.gguf", None),
        ("Q4/2024-report.gguf", "Q4"),
        ("Qwen3-8B.gguf", None),
        ("IQ4_XSomething.gguf", None),
        ("model.gguf", None),
    ],
)
def test_the_quant_in_a_file_name(path, quant):
    assert quant_of(path) == quant


@pytest.mark.parametrize(
    ("files", "quant", "path"),
    [
        (BARTOWSKI, "Q4_K_M", "Llama-3.2-3B-Instruct-Q4_K_M.gguf"),
        (BARTOWSKI, "q4_k_m", "Llama-3.2-3B-Instruct-Q4_K_M.gguf"),
        (BARTOWSKI, "Q4_K_S", "Llama-3.2-3B-Instruct-Q4_K_S.gguf"),
        (BARTOWSKI, "Q4_0", "Llama-3.2-3B-Instruct-Q4_0.gguf"),
        (BARTOWSKI, "fp16", "Llama-3.2-3B-Instruct-f16.gguf"),
        (UNSLOTH, "Q4_K_M", "Qwen3.6-27B-Q4_K_M.gguf"),
        (UNSLOTH, "UD-Q4_K_M", "Qwen3.6-27B-UD-Q4_K_M.gguf"),
        (UNSLOTH, "ud-q4_k_xl", "Qwen3.6-27B-UD-Q4_K_XL.gguf"),
        (UNSLOTH, "Q8_0", "Qwen3.6-27B-Q8_0.gguf"),  # not the draft
        (UNSLOTH, "BF16", "BF16/Qwen3.6-27B-BF16-00001-of-00002.gguf"),  # not the projector
        (GGML_ORG, "F16", "gemma-3-4b-it-f16.gguf"),
        (GPT_OSS, "MXFP4", "gpt-oss-120b-mxfp4-00001-of-00003.gguf"),
        (THE_BLOKE, "Q4_K_M", "mistral-7b-instruct-v0.2.Q4_K_M.gguf"),
        (MRADERMACHER, "Q4_K_M", "Big-Model-70B.i1-Q4_K_M.gguf"),
        (QWEN, "Q8_0", "qwen2.5-7b-instruct-q8_0-00001-of-00003.gguf"),
        (FOLDERS, "Q4_K_M", "model-Q4_K_M.gguf"),  # the shortest path of two copies
        (FOLDERS, "Q8_0", "Q8_0/model.gguf"),
    ],
)
def test_a_requested_quant(files, quant, path):
    (one,) = choose(files, quant=quant).models
    assert one.path == path


@pytest.mark.parametrize(
    ("files", "quant", "sentence"),
    [
        (BARTOWSKI, "Q4_K", "The repository has no Q4_K. It has Q8_0, Q6_K_L, Q6_K, Q5_K_M, Q4_K_"),
        (UNSLOTH, "Q4_K_XL", "The repository has no Q4_K_XL. It has "),
        (UNSLOTH, "IQ1_S", "The repository has no IQ1_S. It has "),
        (MRADERMACHER, "Q6_K", "The repository has no Q6_K. It has Q4_K_M, IQ2_XXS."),
        (CUT, "Q6_K", "falcon-180b.Q6_K.gguf-split-a is a piece of a file that an old tool cut"),
        (CUT, None, "falcon-180b.Q6_K.gguf-split-a is a piece of a file that an old tool cut"),
        (ADAPTERS, None, "The repository has draft models"),
        (listing("model.safetensors 3"), None, "The repository has no GGUF file."),
        ([], None, "The repository has no GGUF file."),
        (ONLY_DYNAMIC, "Q8_0", "Q8_0/GLM-4.7-Q8_0-00001-of-00003.gguf is one of 3 parts"),
        (listing("model.gguf 1"), "Q4_K_M", "No file of the repository is named Q4_K_M. "),
    ],
)  # fmt: skip
def test_a_missing_file_or_quant_is_an_error(files, quant, sentence):
    with pytest.raises(ModelNotFound) as error:
        choose(files, quant=quant)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("files", "gb", "path", "why"),
    [
        (BARTOWSKI, 100, "Llama-3.2-3B-Instruct-Q8_0.gguf", "Chose Q8_0: the best quant."),
        (BARTOWSKI, 2.5, "Llama-3.2-3B-Instruct-Q5_K_M.gguf", FITS.format("Q5_K_M")),
        (BARTOWSKI, 2.05, "Llama-3.2-3B-Instruct-Q4_K_M.gguf", FITS.format("Q4_K_M")),
        (BARTOWSKI, 1.25, "Llama-3.2-3B-Instruct-IQ4_XS.gguf", ""),  # near to Q4_K_M and pages
        (BARTOWSKI, 0.1, "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
         "Chose Q4_K_M: no quant fits"),
        (BARTOWSKI, None, "Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Chose Q4_K_M: the usual quant."),
        (UNSLOTH, 20, "Qwen3.6-27B-UD-Q4_K_XL.gguf", ""),
        (UNSLOTH, 17, "Qwen3.6-27B-Q4_K_M.gguf", ""),
        (UNSLOTH, 16, "Qwen3.6-27B-IQ4_XS.gguf", ""),
        (GPT_OSS, 1, "gpt-oss-120b-mxfp4-00001-of-00003.gguf", ""),  # the only one
        (ONLY_DYNAMIC, 100, "UD-Q4_K_XL/GLM-4.7-UD-Q4_K_XL-00001-of-00002.gguf", ""),
        (QWEN, None, "qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", ""),
    ],
)  # fmt: skip
def test_without_a_quant_the_best_that_fits_is_chosen(files, gb, path, why):
    choice = choose(files, gb and room(gb))
    (one,) = choice.models
    assert one.path == path
    assert choice.why.startswith(why)


def test_a_quant_without_room_on_the_disk_is_not_chosen():
    (one,) = choose(BARTOWSKI, room(100), disk=int(2.1 * GB)).models
    assert one.quant == "Q4_K_M"
    (one,) = choose(BARTOWSKI, room(100), disk=1).models  # the caller says that it is full
    assert one.quant == "Q8_0"


def test_a_downloaded_file_needs_no_room_on_the_disk():
    files = [replace(f, here=f.size) if "Q6_K." in f.path else f for f in BARTOWSKI]
    (one,) = choose(files, room(100), disk=int(2.1 * GB)).models
    assert one.quant == "Q6_K"


def test_between_different_models_nothing_is_guessed():
    paths = {one.path for one in choose(TWO_MODELS, room(100)).models}
    assert paths == {file.path for file in TWO_MODELS}
    paths = {one.path for one in choose(TWO_MODELS, quant="Q4_0").models}
    assert paths == {"gemma-3-4b-it-Q4_0.gguf", "gemma-3-4b-it-qat-Q4_0.gguf"}
    (one,) = choose(TWO_MODELS, quant="Q8_0").models
    assert one.path == "gemma-3-4b-it-Q8_0.gguf"


def test_a_file_can_be_named():
    (one,) = choose(UNSLOTH, path="BF16/Qwen3.6-27B-BF16-00002-of-00002.gguf").models
    assert [part.path for part in one.parts] == [file.path for file in UNSLOTH[:2]]
    (one,) = choose(UNSLOTH, path="mmproj-F16.gguf").models
    assert one.path == "mmproj-F16.gguf"
    with pytest.raises(ModelNotFound, match=r"has no file mmproj-F17.gguf. Did you mean mmproj"):
        choose(UNSLOTH, path="mmproj-F17.gguf")
    with pytest.raises(ModelNotFound, match="an old tool cut"):
        choose(MRADERMACHER, path="Big-Model-70B.i1-Q6_K.gguf.part1of2")


@pytest.mark.parametrize(
    "path",
    [
        "a.gguf.part1of2", "a.gguf-split-a", "a.gguf.split-b", "a.gguf.part-a", "b/a.gguf-part-b",
    ],
)  # fmt: skip
def test_files_cut_by_old_tools_are_recognized(path):
    assert is_cut(path)
    assert not is_cut("a-00001-of-00002.gguf")


def test_projectors_best_first_and_of_the_same_folder():
    assert [file.path for file in projectors(UNSLOTH)] == [
        "mmproj-F16.gguf", "mmproj-BF16.gguf", "mmproj-F32.gguf",
    ]  # fmt: skip
    files = listing("a/m-Q4_0.gguf 1\na/mmproj-q8_0.gguf 1\nb/mmproj-f16.gguf 1\nx-mmproj.gguf 1")
    assert [file.path for file in projectors(files, "a/m-Q4_0.gguf")] == [
        "a/mmproj-q8_0.gguf", "b/mmproj-f16.gguf", "x-mmproj.gguf",
    ]  # fmt: skip
    assert projectors(BARTOWSKI) == []


NOT_MODELS = ("mmproj", "imatrix", "mtp-", "lora", "adapter")
LISTINGS = st.sampled_from(ALL)


@pytest.mark.slow
@given(st.data(), LISTINGS, st.none() | st.floats(0.5, 60), st.none() | st.integers(0, 60 * GB))
def test_any_choice_is_a_complete_model_of_the_listing(data, files, gb, disk):
    subset = data.draw(st.lists(st.sampled_from(files), unique=True))
    try:
        choice = choose(subset, gb and room(gb), disk=disk)
    except ModelNotFound:
        return
    for one in choice.models:
        assert set(one.parts) <= set(subset)
        assert not any(word in one.path.lower() for word in NOT_MODELS)
        total = one.path[-10:-5] if "-of-" in one.path else "00001"
        assert len(one.parts) == int(total)
        assert not one.missing


@pytest.mark.slow
@given(st.data(), LISTINGS)
def test_a_requested_quant_is_chosen_or_refused(data, files):
    quant = data.draw(st.sampled_from(BEST_FIRST))
    try:
        choice = choose(files, quant=quant)
    except ModelNotFound:
        assert quant not in {one.quant for one in models(files)}
    else:
        assert {one.quant for one in choice.models} == {quant}


@pytest.mark.slow
@given(LISTINGS, st.floats(0.5, 60), st.floats(0.5, 60))
def test_more_memory_never_gives_a_worse_quant(files, less, more):
    less, more = sorted((less, more))
    fits = [one.size <= less * GB for one in models(files) if one.quant]
    if any(fits):
        (small,), (large,) = (choose(files, room(gb)).models for gb in (less, more))
        assert rank(large.quant) <= rank(small.quant)


@pytest.mark.slow
@given(LISTINGS, st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(files, random):
    shuffled = random.sample(files, len(files))
    assert choose(shuffled) == choose(files)


@given(st.sampled_from(BEST_FIRST), st.sampled_from(["", "UD-"]), st.sampled_from("-._"))
def test_every_quant_is_recognized_in_a_file_name(quant, dynamic, separator):
    assert quant_of(f"Some-Model-3B{separator}{dynamic}{quant}.gguf") == dynamic + quant
    assert quant_of(f"{dynamic}{quant}/model-00001-of-00009.gguf") == dynamic + quant


# drafts and other files that are no models


def test_draft_models_of_each_quant_are_not_models():
    assert {one.base for one in models(GEMMA_4)} == {"gemma-4-12b-it"}
    for asked in (None, "Q8_0", "q8_0"):
        (one,) = choose(GEMMA_4, room(100), quant=asked).models
        assert one.path == "gemma-4-12b-it-Q8_0.gguf"
    (one,) = choose(GEMMA_4, room(100), quant="Q4_K_M").models
    assert one.path == "gemma-4-12b-it-Q4_K_M.gguf"


@pytest.mark.parametrize(
    "path",
    [
        "m-Q8_0-MTP.gguf", "m-Q8_0.mtp.gguf", "MTP/m-Q8_0.gguf", "drafts/m-Q8_0.gguf",
        "draft/m-0.6B-Q8_0.gguf", "mtp-m-Q8_0.gguf", "eagle3-m.gguf", "EAGLE3/m-F16.gguf",
        "m-Q4_K_M-draft.gguf", "m-assistant-Q8_0.gguf", "m-it-assistant.Q8_0.gguf",
        "m-eagle3-F16.gguf", "m-dflash-Q8_0.gguf", "m-MTP-Q8_0.gguf", "m-mtp.gguf",
        "m-F16-mmproj.gguf", "mmproj/m-F16.gguf", "lora/m-F16.gguf", "m-F16-LoRA.gguf",
        "m-lora-F16.gguf", "m.imatrix.gguf", "imatrix/m.gguf", "ggml-vocab-m.gguf",
        "m-F16-vocab.gguf", "m-Q8_0-MTP-00001-of-00001.gguf",
    ],
)  # fmt: skip
def test_names_of_files_that_are_not_models(path):
    others = [RepoFile("m-Q8_0.gguf", 8 * GB), RepoFile("m-it-Q8_0.gguf", 8 * GB)]
    assert {one.path for one in models([*others, RepoFile(path, GB)])} == {f.path for f in others}
    (asked,) = choose([*others, RepoFile(path, GB)], path=path).models
    assert asked.path == path and asked.kind
    assert "not a model" in choose([*others, RepoFile(path, GB)], path=path).why


@pytest.mark.parametrize(
    "path",
    ["Qwen3.6-27B-MTP-Q8_0.gguf", "code-assistant-Q8_0.gguf", "assistant-7b-Q8_0.gguf",
     "Mistral-Small-Draft-0.5B-Q8_0.gguf", "Exploration-Q8_0.gguf", "Florafaun-F16.gguf"],
)  # fmt: skip
def test_names_of_models_that_contain_such_a_word(path):
    among = [RepoFile(path, GB), RepoFile("other-Q8_0.gguf", GB)]
    assert path in [one.path for one in models(among)]
    # the same size: the model with its MTP layers, not a draft of it
    plain = path.replace("-MTP", "").replace("-assistant", "")
    assert len(models([RepoFile(path, GB), RepoFile(f"x/{plain}", GB)])) == 2


def test_a_header_precedes_a_word_in_the_name():
    model = RepoFile("m-Q8_0.gguf", 8 * GB, kind="")
    assert len(models([model, RepoFile("m-draft-Q8_0.gguf", GB, kind="")])) == 2
    assert (
        models([model, RepoFile("small-Q8_0.gguf", GB, kind=gguf_kinds.DRAFT)])[0].path
        == model.path
    )
