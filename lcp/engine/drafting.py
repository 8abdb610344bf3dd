"""Drafts what an answer says next where it repeats the prompt or itself, and decides how much of
the draft is worth checking.

Pure: a function of tokens, and arithmetic on hits and seconds. It knows no model.
"""

from array import array

MOST = 16  # tokens of a batch: one that was chosen, and the draft after it
# The last tokens of the text that must have occurred before. Shorter matches are mostly chance.
MATCHES = (3, 6, 12)
SIZES = (1, 2, 4, 8, 16)  # of batches
PACE = 0.2  # the hit rate follows about the last 5 tokens
SHARE = 0.25  # of a step that each more token in its batch costs, until it is measured
SLOWER = 0.5  # how far a slower measurement counts, at most twice as slow; a faster counts whole
FORGET = 0.0005  # how far, at each step, the times of other sizes go back to what is expected
GAIN = 1.05  # the least speedup that is worth drafting for


def draft(tokens: "array[int]") -> list[int]:
    """What followed the last place where the text was the same as at its end: at most MOST tokens.

    The same means the last 12 tokens if they occurred before, else the last 6, else the last 3.
    """
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
    """How many tokens to draft: the number that promises the most tokens a second.

    The hit rate tells how many will be kept. It costs nothing to know: each chosen token is
    compared with the draft, evaluated or not. What a batch costs is measured.
    """

    def __init__(self) -> None:
        self._rate = 0.0  # of tokens that were as drafted
        self._seconds: dict[int, float] = {}  # of a step, by the size of its batch

    def begin(self) -> None:
        """Begin another answer: nothing is known of its hits."""
        self._rate = 0.0

    def saw(self, hit: bool) -> None:
        """Take note whether a token was as drafted."""
        self._rate += PACE * (hit - self._rate)

    def took(self, size: int, seconds: float) -> None:
        """Take note of the time of a step. Other programs make steps slower, never faster."""
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
        """Tokens a second expected of batches of this size."""
        return sum(self._rate**i for i in range(size)) / self._cost(size)

    def _cost(self, size: int) -> float:
        return self._seconds.get(size) or self._expected(size)

    def _expected(self, size: int) -> float:
        """The seconds of a step, from those of the next smaller size. The second token often costs
        the most: other code computes products of matrices than of a matrix and a vector."""
        smaller = max(known for known in self._seconds if known < size)
        return self._seconds[smaller] + SHARE * self._seconds[1] * (size - smaller)
