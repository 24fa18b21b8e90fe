"""What the server remembers of one client: its planner, its episode, its policy's queues. Nothing is shared
between clients but weights."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...interfaces import ActionSpec, Decision, ForethoughtError, Observation, Planner, Policy
from ..actions import ACTION_KEYS, read
from ..controller import hold_still
from ..guard import Guard
from ..limits import Limits
from ..wrap import wrap
from .episodes import RESET_KEY, EpisodeWatch
from .requests import Keys, is_batched

log = logging.getLogger(__name__)

NOTE = "forethought"
"""Key under which an answer says what the search did."""


class Observe(Protocol):
    """From a request to an Observation with the cameras named."""

    def __call__(self, request: Mapping[str, Any], cameras: Sequence[str] = ()) -> Observation: ...


@dataclass(frozen=True, eq=False)
class Search:
    """What every client's search is made of.

    Attributes:
        planner: Makes a planner, one for each client: planners remember.
        cameras: What the models look at.
        action_spec: What the numbers of an action mean.
        horizon: Chunk length H of the models, in control steps.
        guard: ``Limits`` of the robot, which give every client a guard, what makes one, or None for the
            bounds of the action.
        deadline_ms: Wall time after which a planner is given up; None waits.
        samples: Chunks asked of a policy that can give several; None: what the planner compares.
        seed: Seed of all draws, the same for every client.
    """

    planner: Callable[[], Planner]
    action_spec: ActionSpec
    horizon: int
    cameras: tuple[str, ...] = ()
    guard: Limits | Callable[[], Guard] | None = None
    deadline_ms: float | None = None
    samples: int | None = None
    seed: int = 0

    def wrap(self, policy: Any, observation: Callable[..., Observation]) -> Any:
        """The policy for one client, with a planner of its own."""
        return wrap(
            policy,
            planner=self.planner(),
            observation=observation,
            action_spec=self.action_spec,
            horizon=self.horizon,
            guard=self.guard() if callable(self.guard) else self.guard,
            deadline_ms=self.deadline_ms,
            samples=self.samples,
            seed=self.seed,
        )


@dataclass(eq=False)
class Session:
    """One client of a policy that looks ahead, or of one that does not.

    Not to be called by two threads at a time.

    Attributes:
        act: Answers a request, given its observation.
        observe: Understands a request.
        reset: Begins an episode.
        cameras: What an observation must show.
        lookahead: The part that looks ahead, or None.
        watch: Finds out where episodes begin.
        episodes: How many began.
    """

    act: Callable[[Mapping[str, Any], Observation], Any]
    observe: Observe
    reset: Callable[[], Any]
    cameras: tuple[str, ...] = ()
    lookahead: Any = None
    watch: EpisodeWatch = field(default_factory=EpisodeWatch)
    episodes: int = 0

    def answer(self, request: Mapping[str, Any]) -> Any:
        """The answer to a request.

        Raises:
            ForethoughtError: The request is not an observation that can be acted on; says what is missing.
            Exception: The first time, what the policy raises.
        """
        if set(request) == {RESET_KEY}:
            self._begin("told")
            return {RESET_KEY: True}
        observation = self._seen(request)
        try:
            return self.act({key: request[key] for key in request if key != RESET_KEY}, observation)
        finally:
            self.watch.answered(time.monotonic())

    def missed(self, request: Mapping[str, Any]) -> None:
        """A request that somebody else will not answer: it may have begun an episode all the same."""
        try:
            self._seen(request)
        except ForethoughtError as error:
            log.info("Not understood, and not answered either: %s", error)
        self.watch.answered(time.monotonic())

    def _seen(self, request: Mapping[str, Any]) -> Observation:
        observation = self.observe(request, self.cameras)
        reason = self.watch.begins(request, observation, time.monotonic())
        if reason:
            self._begin(reason)
        return observation

    def _begin(self, reason: str) -> None:
        self.episodes += 1
        log.info("Episode %d begins: %s.", self.episodes, reason)
        if self.episodes > 1:
            self.reset()


def policy_session(policy: Any, search: Search | None, observe: Observe | None = None) -> Session:
    """A client's session with a policy that lives here.

    Args:
        policy: The reference policy or another ``Policy``, an object with ``infer(request)``, or a function
            of a request. Weights are shared between sessions; what an object keeps in its own lists and
            arrays is not, where there is a search. Without one all clients share the object.
        search: How to look ahead, or None to serve the policy as it is.
        observe: Understands a request; by default by the usual keys.

    Raises:
        ForethoughtError: The policy cannot be driven so.
    """
    seen: dict[str, Observation] = {}
    served = policy if search is None else search.wrap(policy, lambda *args, **kwargs: seen["now"])
    call = _call_of(served)

    def act(request: Mapping[str, Any], observation: Observation) -> Any:
        seen["now"] = observation
        return noted(as_answer(call(request, observation)), _decision(served))

    wanted = search.cameras if search is not None else tuple(getattr(policy, "cameras", ()))
    lookahead = getattr(served, "forethought", None)
    # Without a search all clients share the object, and none may reset it under the others.
    reset = lookahead.begin if lookahead is not None else lambda: None
    return Session(act, observe or Keys(), reset, wanted, lookahead)


def _call_of(policy: Any) -> Callable[[Mapping[str, Any], Observation], Any]:
    if callable(getattr(policy, "infer", None)):
        return lambda request, observation: policy.infer(request)
    if isinstance(policy, Policy):
        lookahead, decisions = getattr(policy, "forethought", None), itertools.count()

        def propose(request: Mapping[str, Any], observation: Observation) -> Any:
            if lookahead is not None:
                chunk = lookahead.decide(observation).chunk
            else:
                sequence = np.random.SeedSequence([0, next(decisions)])
                seeds = sequence.generate_state(observation.batch, np.uint32).astype(np.int64)
                chunk = policy.propose(observation, 1, seeds).chunks[:, 0]
            return {"actions": chunk if is_batched(request) else chunk[0]}

        return propose
    if callable(policy):
        return lambda request, observation: policy(request)
    raise ForethoughtError(
        f"Cannot serve a {type(policy).__name__}: expected an object with infer(observation), a Policy "
        "(propose, action_spec, horizon), or a function from an observation to actions."
    )


def as_answer(raw: Any) -> Any:
    """What a policy returned, as openpi's clients expect it: a dictionary with ``actions``."""
    if isinstance(raw, Mapping):
        key = next((key for key in ACTION_KEYS if key in raw), None)
        return raw if key in (None, "actions") else {**raw, "actions": raw[key]}
    return {"actions": raw[0] if isinstance(raw, tuple) and raw else raw}


def _decision(policy: Any) -> Decision | None:
    lookahead = getattr(policy, "forethought", None)
    return getattr(lookahead, "last", None)


def noted(answer: Any, decision: Decision | None) -> Any:
    """The answer with a note of what the search did, in numbers and words that every client can read."""
    if decision is None or not isinstance(answer, Mapping):
        return answer
    note = {
        "overridden": bool(np.any(decision.overridden)),
        "fallback": bool(np.any(decision.fallback)),
        "reason": "; ".join(dict.fromkeys(decision.reason)),
        "value": float(np.mean(decision.value)),
        "policy_value": float(np.mean(decision.policy_value)),
        "simulations": int(np.sum(decision.simulations)),
        "milliseconds": {name: float(time) for name, time in decision.milliseconds.items()},
    }
    return {**answer, NOTE: note}


class RelayedSession:
    """A client's session with a policy that lives elsewhere: its answers come in, perhaps better ones go out.

    An answer whose actions are kept is returned as the very object that came in.
    """

    def __init__(self, search: Search, observe: Observe | None = None) -> None:
        self._seen: dict[str, Any] = {}
        self._search = search
        self._wrapped = search.wrap(self._relayed, lambda *args, **kwargs: self._seen["observation"])
        self._last: Any = None
        self._session = Session(
            self._act,
            observe or Keys(),
            self._wrapped.reset,
            search.cameras,
            self._wrapped.forethought,
        )

    @property
    def lookahead(self) -> Any:
        """The part that looks ahead."""
        return self._wrapped.forethought

    def answer(self, request: Mapping[str, Any], theirs: Any) -> Any:
        """What to answer, given what the other policy answered.

        Until one decision went well, what the user can mend is raised; after that, an observation that the
        models cannot read leaves the other's answer as it is, counted.

        Raises:
            ForethoughtError: Models, observation and answer do not fit together.
        """
        self._seen["theirs"] = theirs
        try:
            answer = self._session.answer(request)
        except ForethoughtError as error:
            if not self.lookahead.started:
                raise
            self.lookahead.controller.count("observation", 1, error)
            answer = theirs
        self._last = answer
        return answer

    def reset(self, request: Mapping[str, Any]) -> Any:
        """Answers a request that is only a reset."""
        return self._session.answer(request)

    def missed(self, request: Mapping[str, Any]) -> None:
        """A request that the other policy did not answer."""
        self._session.missed(request)

    def held(self) -> Any:
        """An answer that holds the robot still, of the form of the last one.

        Raises:
            ForethoughtError: There was none yet: nobody knows what an answer looks like.
        """
        if not isinstance(self._last, Mapping):
            raise ForethoughtError("There was no answer yet whose motion could be stopped.")
        spec, horizon = self._search.action_spec, self._search.horizon
        decision = self.lookahead.last
        batch = 1 if decision is None else len(decision.chunk)
        last = read(self._last, batch, horizon, spec.size)
        still = hold_still(spec, horizon, last.chunk[:, -1])
        key = next(key for key in ACTION_KEYS if key in self._last)
        actions = np.asarray(self._last[key])
        values = (still[:, 0] if last.single else still).reshape(actions.shape).astype(actions.dtype)
        note = {"overridden": True, "fallback": True, "reason": "upstream lost: hold still"}
        return {**self._last, key: values, NOTE: note}

    def _relayed(self, request: Mapping[str, Any]) -> Any:
        return self._seen["theirs"]

    def _act(self, request: Mapping[str, Any], observation: Observation) -> Any:
        self._seen["observation"] = observation
        theirs = self._seen["theirs"]
        answer = self._wrapped(request)
        return answer if answer is theirs else noted(answer, self.lookahead.last)
