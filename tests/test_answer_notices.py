"""Notices about an answer: their numbers, and the command to type next."""

from lcp.chat import answer_notices
from lcp.engine_interface import Progress, Stats
from lcp.engine_notices import ContextStays, NoTokenFits, Repetition, ThinkingEnded


def test_the_line_after_an_answer_has_speed_and_context():
    line = answer_notices.numbers(Stats(ctx_used=2977, ctx_size=8192))
    assert line == "context 2,977/8,192 (36 %)"
    long = answer_notices.all_numbers(Stats(reply_tokens=1234, read=56789, reused=4321))
    assert "1,234 tokens in" in long and "read 56,789 in" in long and "reused 4,321" in long
    assert "drafted" not in long
    assert "20 of 1,030 drafted" in answer_notices.all_numbers(Stats(drafted=1030, accepted=20))


def test_a_truncated_answer_names_the_command_that_continues_it():
    for ended, said, command in [
        ("interrupted", True, "/continue"),
        ("length", True, "/continue"),
        ("length", False, "/retry"),
    ]:
        assert command in answer_notices.numbers(Stats(), ended, said)
    assert "/" not in answer_notices.numbers(Stats(), "full").replace("0/0", "")


def test_reading_shows_percentage_speed_and_time_left():
    assert "0 %" in answer_notices.reading(Progress(0, 0, 0, 2048), 0.5)
    line = answer_notices.reading(Progress(0, 0, 512, 2048), 2)
    assert "25 %" in line and "256 tokens/s" in line and "6 s left" in line and "2,048" in line
    long = answer_notices.reading(Progress(0, 0, 12_345, 65_536), 60)
    assert long[:39].endswith(" s left;")  # in 40 columns, too


def test_a_notice_has_a_number_and_the_setting_to_change():
    said = answer_notices.sentence(ThinkingEnded(1200))
    assert "1,200" in said and "/set reasoning_budget auto" in said
    said = answer_notices.sentence(Repetition(4, 50))
    assert "4 tokens, 50 times" in said and "/set loop_guard off" in said and "/retry" in said
    assert "a comma" in answer_notices.sentence(NoTokenFits("a comma is missing"))


def test_a_context_that_cannot_grow_reports_the_memory_it_needs():
    for free, more in ((90_000_000, "90.0 MB"), (None, "")):
        said = answer_notices.sentence(ContextStays(2048, 8192, 370_000_000, free))
        assert all(part in said for part in ("2,048", "8,192", "370 MB", more))
        assert "lcp chat --continue" in said
