"""Rounds of an improvement: what each has done, where it stands, and when to stop.

``out/roundNN/round.json`` holds what each finished step of a round found. It is written whole after every
step, so that a run killed at any moment goes on with the step it was in; the steps themselves go on where
they were.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...interfaces import ForethoughtError

STEPS = ("collect", "train", "evaluate")
RECORD, OVERVIEW = "round.json", "improve.json"


@dataclass(frozen=True, eq=False)
class Round:
    """One round.

    Attributes:
        folder: Everything of the round: ``data``, ``models``, ``evaluation``, ``round.json``.
        number: From 0.
        before: The rounds before it, all finished.
        found: Step to what it found, for the finished steps.
    """

    folder: Path
    number: int
    before: tuple[Round, ...] = ()
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Episodes collected in this round."""
        return self.folder / "data"

    @property
    def models(self) -> Path:
        """Models trained in this round."""
        return self.folder / "models"

    @property
    def rate(self) -> float:
        """Success rate of the search in the round's evaluation."""
        return self.found["evaluate"]["successes"] / max(self.found["evaluate"]["episodes"], 1)

    def record(self, step: str, found: Mapping[str, Any]) -> None:
        """Writes down that a step is finished."""
        self.found[step] = dict(found)
        write_json(self.folder / RECORD, {"round": self.number, **self.found})

    @classmethod
    def open(cls, out: Path, number: int, before: Sequence[Round]) -> Round:
        """The round as its record says, or a new one."""
        folder = out / f"round{number:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        found = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
        return cls(folder, number, tuple(before), {step: found[step] for step in STEPS if step in found})


class Steps(Protocol):
    """What a round does. Each step may be called again after a kill, and goes on where it was; each returns
    what ``round.json`` shall say of it."""

    def collect(self, round_: Round) -> Mapping[str, Any]:
        """Fills ``round_.data``."""
        ...

    def train(self, round_: Round) -> Mapping[str, Any]:
        """Fills ``round_.models`` from the data of all rounds so far."""
        ...

    def evaluate(self, round_: Round) -> Mapping[str, Any]:
        """Success of the round's models on episodes that no data start from: ``successes``, ``episodes``, and
        ``alone``, the successes of the policy alone."""
        ...


def improve(
    out: Path,
    steps: Steps,
    *,
    rounds: int,
    patience: int,
    least_gain: float,
    settings: Mapping[str, Any],
    report: Any = lambda rounds: None,
    not_before: int = 0,
) -> list[Round]:
    """Runs rounds until ``patience`` of them in a row gained less than ``least_gain``.

    Args:
        out: Folder of the improvement; belongs to one set of ``settings``.
        steps: What a round does.
        rounds: Most rounds.
        patience: Rounds without gain that end it.
        least_gain: Success rate above the best so far (the policy alone to begin with) that counts as a gain.
        settings: What decides the outcome, for the record.
        report: Called with the finished rounds after each.
        not_before: Number of the first round after which it may end for want of gain.

    Raises:
        ForethoughtError: The numbers make no sense, or the folder belongs to other settings or to a run that
            is under way.
    """
    if rounds < 1 or patience < 1 or not 0 <= least_gain < 1:
        raise ForethoughtError(
            f"rounds={rounds}, patience={patience}, least_gain={least_gain}; expected at least 1, at least "
            "1, and a share of the episodes in [0, 1)."
        )
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _claim(out, settings)
        done: list[Round] = []
        for number in range(rounds):
            current = Round.open(out, number, done)
            for step in STEPS:
                if step not in current.found:
                    started = time.monotonic()
                    found = getattr(steps, step)(current)
                    current.record(step, {**found, "seconds": round(time.monotonic() - started, 1)})
            done.append(current)
            _overview(out, done, settings, least_gain)
            report(done)
            if number >= not_before and fruitless(done, least_gain) >= patience:
                break
        return done


def best(rounds: Sequence[Round]) -> Round:
    """The round whose models succeed most often; of equals the first."""
    return max(rounds, key=lambda one: (one.rate, -one.number))


def fruitless(rounds: Sequence[Round], least_gain: float) -> int:
    """How many of the last rounds in a row gained less than ``least_gain`` over the best before them."""
    count, record = 0, rounds[0].found["evaluate"]["alone"] / max(rounds[0].found["evaluate"]["episodes"], 1)
    for one in rounds:
        gained = one.rate - record >= least_gain - 1e-9 and one.rate > record
        count = 0 if gained else count + 1
        record = max(record, one.rate)
    return count


def _overview(out: Path, done: Sequence[Round], settings: Mapping[str, Any], least_gain: float) -> None:
    top = best(done)
    overview = {
        "best": {"round": top.number, "models": str(top.models.relative_to(out)), "rate": top.rate},
        "rounds": [
            {
                "round": one.number,
                "successes": one.found["evaluate"]["successes"],
                "episodes": one.found["evaluate"]["episodes"],
                "alone": one.found["evaluate"]["alone"],
            }
            for one in done
        ],
        "rounds_without_gain": fruitless(done, least_gain),
        "settings": settings,
    }
    write_json(out / OVERVIEW, overview)


def _claim(out: Path, settings: Mapping[str, Any]) -> None:
    """One folder, one set of settings: rounds of different kinds would not form a lineage."""
    path = out / "settings.json"
    wanted = json.loads(json.dumps(settings, default=str))
    if not path.is_file():
        write_json(path, wanted)
        return
    found = read_json(path)
    differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    if differing:
        lines = "; ".join(f"{key} was {found.get(key)}, is now {wanted.get(key)}" for key in differing)
        raise ForethoughtError(
            f"out={out} holds an improvement with other settings: {lines}. Give another folder with out=..., "
            "or the earlier settings."
        )


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    import fcntl

    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ForethoughtError(
                f"Another process is improving in out={out}. Wait for it, or give another folder."
            ) from None
        yield


def read_json(path: Path) -> dict[str, Any]:
    """A record of ours."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ForethoughtError(
            f"{path} is not readable JSON ({error}). Delete it: its step is done again from what is there."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Under a temporary name first: no half file stays."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
