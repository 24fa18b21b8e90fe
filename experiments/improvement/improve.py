"""``forethought improve``: the commands `collect`, `train models` and `eval`, round after round."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from ...interfaces import ForethoughtError
from ..data.collect import FIRST_RESERVED_STATE, collect
from ..data.hdf5 import find_files
from ..evaluation.evaluate import Invocation, evaluate
from ..evaluation.fingerprint import digest
from ..evaluation.parts import build
from ..evaluation.plan import parse_indices
from ..evaluation.report import percent, report_console
from .rounds import Round, best, improve

MOST_INDICES = 100_000
FREE = ("name", "out", "rounds", "patience", "least_gain", "workers", "attempts", "timeout", "quiet")
"""Settings that may change between two starts: they decide no episode."""


@dataclass(frozen=True, eq=False)
class Commands:
    """The steps of a round as the commands that exist.

    Attributes:
        config: The composed config of `forethought improve`.
        invocation: How it was asked for.
        training: The composed config of `forethought train models`.
    """

    config: DictConfig
    invocation: Invocation
    training: DictConfig

    def collect(self, round_: Round) -> dict[str, Any]:
        """See ``Steps.collect``; with search once a round before has models and ``search_from`` is
        reached."""
        searches = bool(round_.before) and round_.number >= int(self.config.search_from)
        settings = _plain(self.config.collect)
        amounts = settings["episodes_per_task"]
        source = _plain(self.config.later if searches else self.config.source)
        lineage: dict[str, Any] = {"search": searches, "seed": int(self.config.seed) + round_.number}
        if searches:
            models = round_.before[-1].models
            source["policy"]["folder"] = str(models)
            lineage |= {"models": _place(models, round_), "models_digest": digest(models)}
        collect(
            _plain(self.config.benchmark),
            build("source", {**source, "_recursive_": False}),
            out=round_.data,
            episodes_per_task=int(amounts[min(round_.number, len(amounts) - 1)]),
            tasks=self._tasks(),
            init_states=parse_indices(settings["init_states"], "collect.init_states", MOST_INDICES),
            workers=int(self.config.workers),
            seed=lineage["seed"],
            quiet=bool(self.config.quiet),
        )
        return lineage | count_episodes(round_.data)

    def train(self, round_: Round) -> dict[str, Any]:
        """See ``Steps.train``."""
        folders = [*map(str, self.config.data), *(str(one.data) for one in (*round_.before, round_))]
        if round_.before and self.config.keep_encoder:
            _lend_encoder(round_.before[-1].models, round_.models)
        chosen = {"rollouts": folders, "out": str(round_.models), "seed": int(self.config.seed)}
        settings = _plain(OmegaConf.merge(self.training, self.config.train, chosen))
        build("command", settings)
        return {
            "rollouts": [_place(Path(folder), round_) for folder in folders],
            "options": {name: value for name, value in settings.items() if name not in chosen},
            "seed": chosen["seed"],
            "encoder": "kept" if round_.before and self.config.keep_encoder else "trained",
            "models_digest": digest(round_.models),
        }

    def evaluate(self, round_: Round) -> dict[str, Any]:
        """See ``Steps.evaluate``. All rounds share one file of episodes, so that the policy alone runs
        once."""
        config = self.config.copy()
        config.merge_with({"models": str(round_.models), "out": str(Path(self.config.out) / "evaluation")})
        folder = round_.folder / "evaluation"
        given = self.invocation
        summary = evaluate(
            config,
            Invocation(given.choices, given.load_option, given.overrides, given.command, folder),
            Console(quiet=True) if self.config.quiet else None,
        )
        arm = list(summary["arms"])[1]
        numbers, alone = summary["arms"][arm], summary["arms"]["policy"]
        return {
            "arm": arm,
            "successes": numbers["successes"],
            "episodes": numbers["episodes"],
            "wilson95": numbers["wilson95"],
            "alone": alone["successes"],
            **summary["paired"][arm],
            "init_states": summary["init_states"],
            "versions": summary["versions"],
            "summary": "evaluation/summary.json",
        }

    def _tasks(self) -> tuple[int, ...] | None:
        tasks = self.config.tasks
        return None if tasks == "all" else parse_indices(_plain(tasks), "tasks", MOST_INDICES)


def run(config: DictConfig, invocation: Invocation, training: DictConfig) -> list[Round]:
    """Improves as the config says, and prints a table of the rounds.

    Raises:
        ForethoughtError: Settings do not fit together, before anything is collected.
    """
    check(config)
    config = settled(config)
    steps = Commands(config, invocation, training)
    whole = _plain(config)
    console = Console(quiet=True) if config.quiet else report_console()
    rounds = improve(
        Path(str(config.out)),
        steps,
        rounds=int(config.rounds),
        patience=int(config.patience),
        least_gain=float(config.least_gain),
        settings={name: value for name, value in whole.items() if name not in FREE},
        report=lambda done: console.print(rounds_table(done)),
        # What search makes of the first models is what the next ones learn from: no end before it has acted.
        not_before=int(config.search_from) if config.search_from < config.rounds else 0,
    )
    top = best(rounds)
    console.print(f"Best: round {top.number}, {top.models}", markup=False, highlight=False)
    return rounds


def settled(config: DictConfig) -> DictConfig:
    """The config with one policy, its paths resolved, for everybody who acts: in the first round, with
    search, and in evaluations, whatever models these look at."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    policy = OmegaConf.create(_plain(config.policy))
    config.policy = policy
    if "policy" in config.source:
        config.source.policy = policy
    if "policy" in config.later:
        config.later.policy.folder = None  # the models of the round before
        config.later.policy.policy = policy
    return config


def check(config: DictConfig) -> None:
    """Refuses what would spoil the result: choosing rounds by episodes that were trained on, or by those kept
    for final tables."""
    if not config.planner:
        raise ForethoughtError("improve measures a search; planner=none has none. Choose a planner.")
    learned = set(parse_indices(_plain(config.collect.init_states), "collect.init_states", MOST_INDICES))
    judged = parse_indices(_plain(config.init_states), "init_states", MOST_INDICES)
    if both := sorted(learned & set(judged)):
        raise ForethoughtError(
            f"Initial states {both[:10]} are both collected from (collect.init_states) and evaluated on "
            "(init_states): rounds would be judged by what they have learned. Separate them, as in "
            "collect.init_states=0-21 init_states=22-29."
        )
    reserved = [state for state in judged if state >= FIRST_RESERVED_STATE]
    if reserved and not config.allow_evaluation_states:
        raise ForethoughtError(
            f"init_states holds {reserved[:10]}, which are kept for final tables: a round chosen by them "
            f"could not be measured on them any more. Use states below {FIRST_RESERVED_STATE}, or set "
            "allow_evaluation_states=true and report it."
        )
    amounts = config.collect.episodes_per_task
    if not OmegaConf.is_list(amounts) or not len(amounts) or min(amounts) < 1:
        raise ForethoughtError(
            f"collect.episodes_per_task={amounts}; expected a list of numbers from 1 on, one a round (the "
            "last repeats), such as [240,60]."
        )


def count_episodes(folder: Path) -> dict[str, int]:
    """Episodes, successes and control steps of a collection, from the files' attributes."""
    episodes = successes = steps = 0
    for path in find_files(folder):
        with h5py.File(path, "r") as file:
            for group in file["data"].values():  # type: ignore[union-attr]
                episodes += 1
                successes += bool(group.attrs["success"])
                steps += int(group.attrs["num_samples"])
    return {"episodes": episodes, "successes": successes, "steps": steps}


def rounds_table(rounds: Sequence[Round]) -> Table:
    """One row a round."""
    table = Table(title="improve", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in ("round", "collected", "succeeded", "search", "", "95 %", "alone", "gained", "lost", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in rounds:
        data, seen = one.found["collect"], one.found["evaluate"]
        low, high = (100 * bound for bound in seen["wilson95"])
        table.add_row(
            f"{one.number}{' *' if one is best(rounds) else ''}",
            f"{data['episodes']}{' with search' if data['search'] else ''}",
            percent(data["successes"], data["episodes"]),
            f"{seen['successes']}/{seen['episodes']}",
            percent(seen["successes"], seen["episodes"]),
            f"{low:.0f}–{high:.0f}",
            str(seen["alone"]),
            str(seen["gained"]),
            str(seen["lost"]),
            f"{seen['mcnemar_p']:.2g}",
        )
    return table


def _lend_encoder(lender: Path, borrower: Path) -> None:
    """The encoder stage of the round before, as if it had been trained here."""
    source, target = lender / "stages" / "encoder.pt", borrower / "stages" / "encoder.pt"
    if target.is_file():
        return
    if not source.is_file():
        raise ForethoughtError(f"keep_encoder=true needs {source}, which is not there. Set it to false.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".lent")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _place(folder: Path, round_: Round) -> str:
    """A folder as the round's record names it: below the improvement's own folder, or by its name."""
    out = round_.folder.parent.resolve()
    folder = folder.resolve()
    return str(folder.relative_to(out)) if folder.is_relative_to(out) else folder.name


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
