"""The catalogue: lcp's own is usable, and a person's file adds and overrides entries."""

import pytest

from lcp import paths
from lcp.downloads import model_names
from lcp.downloads.catalog import catalog
from lcp.downloads.repo_files import normal, quant_of
from lcp.errors import SettingsError
from lcp.settings import OPTIONS, Layers


@pytest.fixture
def own():
    """A function that writes a person's models.toml."""
    paths.config().mkdir(parents=True)
    return lambda text: (paths.config() / "models.toml").write_text(text)


def test_the_catalogue_can_be_read_and_used():
    entries = catalog()
    assert len(entries) >= 30
    for name, entry in entries.items():
        assert entry.name == name
        assert entry.name == entry.name.lower() and "/" not in name
        where = model_names.parse(f"{entry.repo}:{entry.quant}")
        assert (where.repo, where.quant) == (entry.repo, entry.quant)
        assert entry.quant == normal(entry.quant) == quant_of(f"{entry.quant}.gguf")
        assert entry.size and 10**8 < entry.size < 10**11
        assert entry.licence and entry.good_for and len(entry.good_for) <= 36
        assert entry.context is None or entry.context >= 8192
        assert set(entry.settings) <= set(OPTIONS)
        Layers(catalog=entry.settings).resolve()


def test_no_two_names_mean_the_same_file():
    files = [(entry.repo, entry.quant) for entry in catalog().values()]
    assert len(set(files)) == len(files)


def test_sizes_in_bytes_are_exact_and_sizes_in_gb_approximate(own):
    entries = catalog()
    llama, smol = entries["llama-3.2-3b"], entries["smollm2-135m"]
    assert (llama.size, llama.about) == (2019377696, False)
    assert (smol.size, smol.about) == (145_000_000, True)
    own("[x]\nrepo = 'a/b'\nsize = 2.0")
    assert (catalog()["x"].size, catalog()["x"].about) == (2 * 10**9, True)


def test_the_users_file_adds_names(own):
    own("[mine]\nrepo = 'me/mine-GGUF'\nquant = 'Q8_0'\ntemp = 0.3\nsystem = 'Be brief.'")
    mine = catalog()["mine"]
    assert (mine.repo, mine.quant) == ("me/mine-GGUF", "Q8_0")
    assert mine.settings == {"temp": 0.3, "system": "Be brief."}
    assert "llama-3.2-3b" in catalog()


def test_the_users_file_overrides_single_fields(own):
    own("['llama-3.2-3b']\nquant = 'Q8_0'\ntemp = 0.1")
    llama = catalog()["llama-3.2-3b"]
    assert llama.quant == "Q8_0"
    assert llama.repo == "bartowski/Llama-3.2-3B-Instruct-GGUF"
    assert llama.settings == {"temp": 0.1, "top_p": 0.9}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[x", "Cannot read "),
        ("repo = 'a/b'", "repo is outside a table"),
        ("[x]\nrepo = 5", "x has an invalid repo (5)"),
        ("[x]\nsize = true", "x has an invalid size (True)"),
        ("[x]\ncontext = 'long'", "x has an invalid context (long)"),
    ],
)
def test_a_broken_file_is_a_usage_error(own, text, sentence):
    own(text)
    with pytest.raises(SettingsError) as error:
        catalog()
    assert sentence in str(error.value)
    assert str(paths.config() / "models.toml") in str(error.value)
    assert error.value.exit_code == 2
