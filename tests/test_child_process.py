"""lcp's child process: its input and its output."""

from dataclasses import asdict

import pytest

from lcp import child_process
from lcp.engine_interface import Constraint


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0.001, 60])
def test_a_child_that_starts_late_gets_its_input(monkeypatch, patience):
    """A child that started after the first short wait got no input."""
    monkeypatch.setattr(child_process, "_PATIENCE", patience)
    wish = asdict(Constraint("regex", "x" * 100_000, "--regex"))  # more than fits into a pipe
    assert child_process.run("constraint", wish, timeout=30).answers


@pytest.mark.slow
def test_waiting_is_called_while_the_child_runs(monkeypatch):
    monkeypatch.setattr(child_process, "_PATIENCE", 0.001)
    seen = []
    assert child_process.run("probe", waiting=lambda: seen.append(1)).answers
    assert seen
