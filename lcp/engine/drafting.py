"""Drafts the next tokens of an answer that repeats the prompt or itself, and decides how many of
them are worth evaluating.

It needs no model: it compares tokens, and computes with hits and seconds.
"""

from array import array

MOST = 16  # tokens of a batch: a sampled one, and the draft after it
# How many of the last tokens must have occurred before. Most shorter matches are chance.
MATCHES = (3, 6, 12)
SIZES = (1, 2, 4, 8, 16)  # tokens of a batch
PACE = 0.2  # the hit rate is an average over about the last 5 tokens
SHARE = 0.25  # the cost of each more token in a batch, in steps of one, until it is measured
SLOWER = 0.5  # the weight of a slower time (at most twice as slow counts); a faster one has 1
FORGET = 0.0005  # how far the times of other sizes return to the expected time at each step
GAIN = 1.05  # the least speedup for which lcp drafts


def draft(tokens: "array[int]") -> list[int]:
    """Find the last earlier place where the end of the text occurs, and return what follows there:
    at most MOST tokens. The end is the last 12 tokens if they occur before, else 6, else 3."""
    text, width = tokens.tobytes(), tokens.itemsize
    found: list[int] = []
    for n in MATCHES:
        end = text[-n * width :]
        at = text.rfind(end, 0, len(text) - width)
        while at % width and at >= 0:  # not where a token begins
            at = text.rfind(end, 0, at + len(end) - 1)
        if at < 0:
            break
        after = at // width + n
        found = tokens[after : after + MOST].tolist()
    return found


class DraftControl:
    """Decides how many tokens to draft: the number that promises the most tokens a second.

    The hit rate predicts how many of them will be right. It costs nothing to measure: each sampled
    token is compared with the draft, whether or not the draft was evaluated. The time of each size
    of batch is measured, too.
    """

    def __init__(self) -> None:
        self._rate = 0.0  # the share of sampled tokens that equal the draft
        self._seconds: dict[int, float] = {}  # the time of a step, by the size of its batch

    def begin(self) -> None:
        """Begin another answer, whose hit rate is not known."""
        self._rate = 0.0

    def record_hit(self, hit: bool) -> None:
        """Record whether a sampled token equals the draft."""
        self._rate += PACE * (hit - self._rate)

    def record_time(self, size: int, seconds: float) -> None:
        """Record the time of a step. Other programs can only make it slower, never faster."""
        if size not in SIZES:
            return
        known = self._seconds.get(size, seconds)
        self._seconds[size] = min(seconds, known + SLOWER * (min(seconds, 2 * known) - known))
        for other in self._seconds.keys() - {1, size}:
            self._seconds[other] += FORGET * (self._expected(other) - self._seconds[other])

    def size(self, most: int) -> int:
        """How many tokens to draft, at most `most`."""
        if not most or 1 not in self._seconds:
            return 0
        best = max((size for size in SIZES if size <= most + 1), key=self._speed)
        return best - 1 if self._speed(best) >= GAIN * self._speed(1) else 0

    def _speed(self, size: int) -> float:
        """The expected tokens a second with batches of this size."""
        return sum(self._rate**i for i in range(size)) / self._cost(size)

    def _cost(self, size: int) -> float:
        return self._seconds.get(size) or self._expected(size)

    def _expected(self, size: int) -> float:
        """The expected time of a step, from the time of the next smaller size. The second token
        often costs most: products of two matrices run other code than a matrix and a vector."""
        smaller = max(known for known in self._seconds if known < size)
        return self._seconds[smaller] + SHARE * self._seconds[1] * (size - smaller)
