"""Looks ahead inside a call of somebody else's policy, whatever its arguments and its answer are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..interfaces import ActionSamples, ActionSpec, Decision, ForethoughtError, Observation
from .actions import Answer, Queue, read
from .gripper import Gripper
from .lookahead import Lookahead

More = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""Draws n further chunks ``[B, n, H, A]`` for the latest call, as the policy writes them, given seeds
``[B]``; with them the log-probabilities ``[B, 1 + n]`` of the call's own chunk and of these, or None."""

Ask = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], tuple[Any, More | None]]
"""Calls a policy's method: what it returned, and how to draw more of it, or None where it has but one."""

Read = Callable[[Any, int], Answer]
"""Understands what a policy returned for B rows."""


def ask_once(
    original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, More | None]:
    """The plain call, for a policy of which nothing else is known."""
    return original(*args, **kwargs), None


class CalledPolicy:
    """The call that is being made, seen as a ``Policy``.

    The call gets its own arguments, not our observation. Where the policy's family knows no way to draw
    further samples there is one per row, and the planner spreads its kernels around it.

    Args:
        action_spec: What the numbers of an action mean.
        horizon: Chunk length H in control steps.
        read: Understands what the call returns; by default an array or what holds one.
        gripper: How the policy writes open and closed, asked after each call; None where it writes it as the
            environment does.

    Attributes:
        call: Makes the call.
        answer: What the last call that went well returned, in environment units, or None.
        problem: What drawing further samples raised, or None. The policy's own chunk is good all the same.
    """

    def __init__(
        self,
        action_spec: ActionSpec,
        horizon: int,
        read: Read | None = None,
        gripper: Callable[[], Gripper | None] = lambda: None,
    ) -> None:
        self._spec, self._horizon = action_spec, horizon
        self.read, self._gripper = read or self._read_array, gripper
        self.call: Callable[[], tuple[Any, More | None]] | None = None
        self.answer: Answer | None = None
        self.problem: Exception | None = None
        self._more: More | None = None
        self._error: Exception | None = None

    @property
    def action_spec(self) -> ActionSpec:
        """What the numbers of an action mean."""
        return self._spec

    @property
    def horizon(self) -> int:
        """Chunk length H in control steps."""
        return self._horizon

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """The chunk that the call returns, ``[B, 1, H, A]``, and up to n - 1 further ones where they can be
        had.

        The policy may remember what it saw: the call is made once, and what it raised is raised again.
        """
        if self.call is not None:
            try:
                self.refresh(len(seeds))
                self._error = None
            except Exception as error:
                self._error = error
        if self._error is not None:
            raise self._error
        if self.answer is None:
            raise ForethoughtError("CalledPolicy needs a call; set it before proposing.")
        own = self.answer.chunk[:, None]
        more, self._more = self._more, None  # it may hold the cache of a language model
        if n == 1 or more is None:
            return ActionSamples(own)
        try:
            chunks, log_probability = more(n - 1, seeds)
            chunks = np.asarray(chunks, np.float32)
            if chunks.ndim != 4 or chunks.shape[0] != len(own) or chunks.shape[2:] != own.shape[2:]:
                raise ForethoughtError(
                    f"Further samples must be [{len(own)}, n, {self._horizon}, {self._spec.size}]; got "
                    f"{list(chunks.shape)}."
                )
            if gripper := self._gripper():
                chunks = gripper.to_environment(chunks, self._spec)
        except Exception as error:
            self.problem = error
            return ActionSamples(own)
        return ActionSamples(np.concatenate([own, chunks], axis=1), log_probability)

    def refresh(self, batch: int) -> None:
        """Makes the call for B rows and takes its answer; raises what that raises."""
        assert self.call is not None
        call, self.call = self.call, None
        raw, self._more = call()
        self.answer = self._in_environment_units(self.read(raw, batch))

    def unwrapped(self) -> Any:
        """What the latest call returned, as it came; raises what that raised."""
        if self._error is not None or self.answer is None:
            raise self._error or ForethoughtError("CalledPolicy needs a call; set it before proposing.")
        return self.answer.raw

    def _in_environment_units(self, answer: Answer) -> Answer:
        gripper, write = self._gripper(), answer.write
        if gripper is None:
            return answer
        return replace(
            answer,
            chunk=gripper.to_environment(answer.chunk, self._spec),
            write=lambda chunk: write(gripper.to_policy(chunk, self._spec)),
        )

    def _read_array(self, raw: Any, batch: int) -> Answer:
        return read(raw, batch, self._horizon, self._spec.size)


class ForeignCall:
    """Stands in for one method of a policy: same arguments, same kind of answer, perhaps better actions.

    A policy of single actions is asked at every step, so that what it remembers stays true; while a planned
    chunk is being executed its answers are set aside. Where the planner keeps the policy's own action, it
    plans anew at the next step, so that a policy that is never overridden acts exactly as if it were not
    wrapped.

    Args:
        policy: The call, seen as a policy.
        lookahead: Decides.
        observe: From the arguments of the call to an Observation.
        queue: Planned actions that are still to be given out.
        ask: How the family calls the method, and draws further samples.
    """

    def __init__(
        self,
        policy: CalledPolicy,
        lookahead: Lookahead,
        observe: Callable[..., Observation],
        queue: Queue,
        ask: Ask = ask_once,
    ) -> None:
        self.policy = policy
        self.lookahead = lookahead
        self.observe = observe
        self.queue = queue
        self.ask = ask
        self._batch = 1

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``original(*args, **kwargs)`` with the actions that the planner chose."""
        observation = self._observation(args, kwargs)
        self.policy.call = lambda: self.ask(original, args, kwargs)
        pending = self.queue.pending(self._batch)
        if pending.all() and self.policy.answer is not None:
            return self._queued(self.policy.answer)
        decision = self.lookahead.decide(observation, batch=self._batch)
        if self.policy.problem is not None:
            self.lookahead.controller.count("samples", self._batch, self.policy.problem)
            self.policy.problem = None
        if self.lookahead.dry_run:
            return self.policy.unwrapped()
        answer = self.policy.answer
        if answer is None:  # the first call failed, but not by raising: there is no shape to answer in
            raise ForethoughtError("The policy has not returned an action yet; nothing to execute.")
        if not answer.single:
            return answer.raw if self._is_own(decision, answer) else answer.write(decision.chunk)
        chunk = decision.chunk.copy()
        for row in range(self._batch):
            if pending[row]:
                chunk[row, 0] = self.queue.take(row)
            elif decision.overridden[row]:
                self.queue.put(row, decision.chunk[row, 1:])
        self.lookahead.controller.executed(chunk[:, :1], instead=True)
        own = not pending.any() and self._is_own(decision, answer)
        return answer.raw if own else answer.write(chunk)

    def _observation(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            observation = self.observe(*args, **kwargs)
        except Exception as error:
            if not self.lookahead.started:
                raise
            return error
        self._batch = len(getattr(observation, "instruction", ())) or self._batch
        return observation

    def _queued(self, answer: Answer) -> Any:
        chunk = np.stack([self.queue.take(row) for row in range(self._batch)])[:, None]
        self.lookahead.controller.executed(chunk)
        try:
            self.policy.refresh(self._batch)
        except Exception as error:
            self.lookahead.controller.count("policy", self._batch, error)
        return (self.policy.answer or answer).write(chunk)

    def _is_own(self, decision: Decision, answer: Answer) -> bool:
        """Whether the decision is the policy's answer as it came, but for the gripper's two values."""
        if decision.overridden.any():
            return False
        spec, chunk = self.policy.action_spec, answer.chunk
        inside = (chunk >= spec.low - 1e-3) & (chunk <= spec.high + 1e-3)
        return bool(inside.all()) and np.array_equal(spec.clip(chunk), decision.chunk)
