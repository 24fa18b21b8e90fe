"""Asks mctx, which lives in an environment of its own, the same questions."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...interfaces import ForethoughtError
from .problem import ARM, Sizes

if TYPE_CHECKING:
    from .throughput import Setting

SCRIPT = Path(__file__).with_name("peer_mctx.py")


class Peer:
    """A process that answers settings with times. Use it as a context manager.

    Args:
        python: The interpreter of the peer's environment.
        clock: ``wall`` or ``cpu``.
        threads: 1 keeps the peer on one core.

    Raises:
        ForethoughtError: The interpreter is not there, or the process ends.
    """

    def __init__(self, python: str, clock: str, threads: int) -> None:
        if not Path(python).is_file():
            raise ForethoughtError(
                f"peer={python} is not there. `make bench-mctx` makes .venv-mctx, or leave peer=null."
            )
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags.strip(),
            "PEER_THREADS": str(threads),
        }
        self._clock, self.threads = clock, threads
        self._process = subprocess.Popen(
            [python, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def ask(self, setting: Setting, sizes: Sizes) -> tuple[float, int]:
        """Seconds of one decision, and its distinct evaluations."""
        line = {
            "batch": setting.batch,
            "simulations": setting.simulations,
            "actions": setting.actions,
            "latent": sizes.latent,
            "hidden": sizes.hidden,
            "horizon": sizes.horizon,
            "action_size": ARM.size,
            "candidates": sizes.actions,
        }
        answer = self._exchange(line)
        return float(answer[self._clock]), int(answer["evaluated"])

    def _exchange(self, line: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(line) + "\n")
            stdin.flush()
            text = stdout.readline()
        except BrokenPipeError:
            text = ""
        if not text:
            raise ForethoughtError(
                f"The peer ended (code {self._process.poll()}) at {line}. Its own message stands above; "
                "`make bench-mctx` makes its environment anew."
            )
        return json.loads(text)
