"""The folders of lcp: LCP_HOME, or the folders of the platform."""

from pathlib import Path

import platformdirs
import pytest

from lcp import paths

EVERY = (paths.config, paths.data, paths.cache, paths.sessions, paths.models)


def test_lcp_home_contains_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("LCP_HOME", str(tmp_path / "home"))
    assert paths.config() == tmp_path / "home" / "config"
    assert paths.data() == tmp_path / "home" / "data"
    assert paths.cache() == tmp_path / "home" / "cache"
    assert paths.sessions() == tmp_path / "home" / "data" / "sessions"
    assert paths.models() == tmp_path / "home" / "data" / "models"


def test_a_tilde_in_lcp_home_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LCP_HOME", "~/chats")
    assert paths.data() == tmp_path / "chats" / "data"


@pytest.mark.parametrize("home", [None, ""])
def test_without_lcp_home_the_platform_decides(monkeypatch, home):
    monkeypatch.delenv("LCP_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("LCP_HOME", home)
    assert paths.config() == Path(platformdirs.user_config_dir("lcp", appauthor=False))
    assert paths.data() == Path(platformdirs.user_data_dir("lcp", appauthor=False))
    assert paths.cache() == Path(platformdirs.user_cache_dir("lcp", appauthor=False))


def test_the_folders_of_the_platform_are_looked_up_each_time(monkeypatch, tmp_path):
    monkeypatch.delenv("LCP_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path in paths.data().parents or not platformdirs.unix  # XDG is Unix's


def test_asking_for_a_path_creates_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LCP_HOME", str(tmp_path / "home"))
    assert not any(path().exists() for path in EVERY)
    assert not (tmp_path / "home").exists()


def test_existing_paths_and_texts_that_are_not_paths(tmp_path):
    assert paths.at(str(tmp_path)) == tmp_path
    for name in (str(tmp_path / "none"), "m" * 999, "~nobody-here/m.gguf", "a\0b", "What is this?"):
        assert paths.at(name) is None
