"""A measurement, not a test: what evaluation costs beside the simulator and the policy, and what a second
worker brings, on the fake world with a simulator that sleeps. Run it with ``python
tests/evaluation/measure_pace.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import evaluation_command as command

MILLISECONDS = 40.0
"""Of simulation in a chunk, as LIBERO takes."""


def main() -> None:
    alone = None
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [f"workers={workers}", "benchmark.init_states=100"]
            code, _, err = command.run(Path(folder), *arguments, FAKE_SLEEP_MS=str(MILLISECONDS))
            if code:
                raise SystemExit(err)
            pace = command.summary(Path(folder))["pace"]
        running = pace["seconds"] * (1 - pace["loading"])
        alone = alone or running
        outside = 1 - pace["simulator"] - pace["decisions"] - pace["loading"]
        print(
            f"{workers} workers: {pace['seconds']:.1f} s, {alone / running:.2f} times one worker without "
            f"loading; outside simulator, decisions and loading {100 * outside:.1f} %"
        )


if __name__ == "__main__":
    main()
