"""The first run: a table of models that fit, Enter downloads one, and the chat begins."""

import re
import subprocess
import sys

import pytest
from hub import Hub
from terminal import CTRL_C, ENTER, Pty, terminal_environment

from lcp.cli import first_run, free_memory
from lcp.downloads.catalog import Entry, catalog

pytestmark = pytest.mark.slow  # processes, servers and time-outs

COMMAND = [sys.executable, "-m", "lcp", "chat"]
# The demo model's package is installed where the tests run.
BARE = '[smollm2-135m]\nwheel = "none-such"\n'


def entry(name, size):
    return Entry(name, size=size)


def test_the_suggested_model_is_the_largest_fast_one():
    sizes = [3_000_000, 30_000_000, 400_000_000, 10**13]
    entries = [entry(f"m{size}", size) for size in reversed(sizes)]
    offered, best = first_run.choose([*entries, Entry("of unknown size")], 16 * 10**9, 3 * 10**9)
    assert [e.size for e in offered] == sizes[:3]
    assert best.size == 400_000_000


def test_only_models_near_the_suggested_one_are_shown():
    entries = [entry(f"m{n}", n * 1_000_000) for n in range(1, 60)]
    offered, best = first_run.choose(entries, None, 3 * 10**9)
    assert len(offered) == first_run.SHOWN
    assert best == offered[-1] == entries[-1]


def test_the_catalogue_has_a_model_for_this_computer():
    offered, best = first_run.choose(list(catalog().values()), free_memory.room(), first_run.QUICK)
    assert best in offered
    assert all(e.size and e.licence and e.good_for for e in offered)


@pytest.fixture
def bare_home(home):
    (home / "config").mkdir(parents=True)
    (home / "config" / "models.toml").write_text(BARE)
    return home


@pytest.mark.slow
def test_choosing_a_model_downloads_it_and_starts_the_chat(bare_home, tiny):
    with Hub() as server:
        server.add("owner/tiny-GGUF", {"tiny-Q8_0.gguf": tiny("dense")})
        with Pty(*COMMAND, home=bare_home, env={"HF_ENDPOINT": server.url}) as chat:
            chat.sees("No model is here yet. These fit this machine:")
            chat.sees("Which one? Enter takes [")
            chat.type("tiny" + ENTER)  # after a typing error, lcp asks again
            chat.sees("There is no model called tiny.")
            chat.type("owner/tiny-GGUF" + ENTER)
            chat.sees("tiny-Q8_0.gguf: verified")
            chat.sees("Ctrl-D leaves\n\n>")
            chat.ends()


@pytest.mark.slow
def test_enter_chooses_the_suggested_model(bare_home, tiny):
    """The row with the arrow: its size and the memory it needs."""
    (bare_home / "config" / "models.toml").write_text(
        BARE + '[tiny-one]\nrepo = "owner/tiny-GGUF"\nquant = "Q8_0"\nsize = 2900000000\n'
        'licence = "mit"\ngood_for = "trying this"\n'
    )
    with Hub() as server:
        server.add("owner/tiny-GGUF", {"tiny-Q8_0.gguf": tiny("dense")})
        with Pty(*COMMAND, home=bare_home, env={"HF_ENDPOINT": server.url}) as chat:
            chat.sees("Which one? Enter takes [tiny-one]")
            (row,) = (line for line in chat.screen().splitlines() if line.startswith("→"))
            assert re.fullmatch(r"→ +tiny-one +2\.90 GB +~3\.78 GB +trying this", row)
            chat.type(ENTER)
            chat.sees("tiny-Q8_0.gguf: verified")
            chat.sees("Ctrl-D leaves\n\n>")
            chat.ends()


@pytest.mark.slow
def test_the_names_are_readable_in_40_columns(bare_home):
    with Pty(*COMMAND, home=bare_home) as chat:
        chat.resize(40, 60)
        chat.sees("Which one? Enter takes [")
        entries = [name for name in catalog() if name in chat.screen()]
        assert len(entries) > 3
        chat.type(CTRL_C)
        assert chat.leaves() == 130


@pytest.mark.slow
def test_the_offer_can_be_declined(bare_home):
    with Pty(*COMMAND, home=bare_home) as chat:
        chat.sees("Which one? Enter takes [")
        chat.type(CTRL_C)
        assert chat.leaves() == 130


@pytest.mark.slow
def test_without_a_terminal_the_offer_is_an_error(bare_home):
    done = subprocess.run(
        [*COMMAND, "Hi."], env=terminal_environment(bare_home), capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lcp: No model is here yet. lcp pull ")
    assert len(done.stderr.splitlines()) == 1
