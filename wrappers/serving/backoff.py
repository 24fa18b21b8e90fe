"""How long to wait before the next attempt to reach a server."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ...interfaces import ForethoughtError


@dataclass(frozen=True)
class Backoff:
    """Waits that double up to a limit, each shortened at random so that clients do not come back together.

    Attributes:
        first: Seconds before the second attempt.
        longest: Seconds that no wait exceeds.
        patience: Seconds from the first attempt after which there is no other; the first is always made.
    """

    first: float = 0.05
    longest: float = 2.0
    patience: float = 5.0

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.longest and self.patience >= 0):
            raise ForethoughtError(
                "A backoff needs 0 < first <= longest and patience >= 0, in seconds; got "
                f"first={self.first}, longest={self.longest}, patience={self.patience}."
            )

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each further attempt; ends when patience does."""
        end, wait = time.monotonic() + self.patience, self.first
        while (left := end - time.monotonic()) > 0:
            yield min(left, wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, self.longest)
