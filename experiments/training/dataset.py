"""Recorded episodes as flat arrays that a training loop can index."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...interfaces import ForethoughtError
from ..data.hdf5 import read_episodes


@dataclass(frozen=True, eq=False)
class EpisodeSet:
    """E episodes, their S states (T+1 each) and the F states of which an image was kept.

    Attributes:
        images: Camera to ``uint8 [F, h, w, 3]``, upright.
        frame_state: State of each frame, ``int64 [F]``.
        proprioception: ``float32 [S, 8]``.
        privileged: ``float32 [S, 18]``, or None where a file does not hold the simulator's state.
        actions: Action at each state, ``float32 [S, A]``; the last repeats.
        episode: Episode of each state, ``int64 [S]``.
        step: Control step of each state in its episode, ``int64 [S]``.
        length: Control steps of each episode, ``int64 [E]``.
        success: ``bool [E]``.
        instruction: Index into ``instructions`` of each episode, ``int64 [E]``.
        instructions: Distinct instructions.
        init_state: ``int64 [E]``; −1 where a file does not say.
    """

    images: dict[str, np.ndarray]
    frame_state: np.ndarray
    proprioception: np.ndarray
    privileged: np.ndarray | None
    actions: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    length: np.ndarray
    success: np.ndarray
    instruction: np.ndarray
    instructions: tuple[str, ...]
    init_state: np.ndarray

    def after(self, state: np.ndarray, steps: int) -> np.ndarray:
        """The state ``steps`` control steps later, or the episode's last."""
        left = self.length[self.episode[state]] - self.step[state]
        return state + np.minimum(left, steps)

    def complete(self, state: np.ndarray, steps: int) -> np.ndarray:
        """Whether what follows within ``steps`` is known: recorded to the end, or ended in success."""
        episode = self.episode[state]
        return (self.length[episode] - self.step[state] >= steps) | self.success[episode]

    def chunks(self, state: np.ndarray, horizon: int) -> np.ndarray:
        """Actions ``[n, H, A]`` from each state on; past the end of the episode the last one repeats."""
        offsets = np.stack([self.after(state, step) for step in range(horizon)], axis=1)
        return self.actions[offsets]

    def summary(self) -> dict[str, object]:
        """What a checkpoint says about its data."""
        return {
            "episodes": len(self.length),
            "successes": int(self.success.sum()),
            "steps": int(self.length.sum()),
            "instructions": len(self.instructions),
            "init_states": [int(self.init_state.min()), int(self.init_state.max())],
        }


def load_episodes(
    folders: Sequence[str | Path],
    cameras: Sequence[str],
    *,
    successes_only: bool = False,
    per_task: int | None = None,
    executed: bool = False,
    init_states: Collection[int] | None = None,
) -> EpisodeSet:
    """Reads every episode below the folders.

    Args:
        folders: What ``forethought collect`` wrote, or folders of LIBERO's own demonstration files.
        cameras: Cameras to keep.
        successes_only: Whether failed episodes are dropped.
        per_task: At most so many episodes of each instruction, in the order of the files.
        executed: Whether ``actions`` are those executed (to learn what happens) or those intended (to
            imitate).
        init_states: Keep only episodes that started in one of these, so that the others can judge the
            result; None keeps all, also those that do not say.

    Raises:
        ForethoughtError: Nothing was found, or the cameras' image sizes differ.
    """
    images: dict[str, list[np.ndarray]] = {name: [] for name in cameras}
    frame_state, body, privileged, actions, step, length = [], [], [], [], [], []
    success, instruction, init_state = [], [], []
    seen: dict[str, int] = {}
    total = 0
    for folder in folders:
        for item in read_episodes(folder):
            if (successes_only and not item.success) or seen.get(item.instruction, 0) == per_task:
                continue
            if init_states is not None and item.init_state not in init_states:
                continue
            seen[item.instruction] = seen.get(item.instruction, 0) + 1
            states = len(item.proprioception)
            for name in cameras:
                images[name].append(item.images(name))
            frame_state.append(total + item.image_steps)
            body.append(item.proprioception)
            privileged.append(item.privileged)
            action = item.executed_actions if executed else item.actions
            actions.append(np.concatenate([action, np.repeat(action[-1:], states - len(action), axis=0)]))
            step.append(np.arange(states))
            length.append(states - 1)
            success.append(item.success)
            instruction.append(item.instruction)
            init_state.append(-1 if item.init_state is None else item.init_state)
            total += states
    if not total:
        kind = "successful episodes" if successes_only else "episodes"
        kind += "" if init_states is None else f" from initial states {sorted(init_states)}"
        raise ForethoughtError(
            f"No {kind} below {[str(folder) for folder in folders]}. Collect some with "
            "`forethought collect`, or give a folder of demonstration files."
        )
    instructions = tuple(seen)
    place = {text: index for index, text in enumerate(instructions)}
    return EpisodeSet(
        images={name: np.concatenate(parts) for name, parts in images.items()},
        frame_state=np.concatenate(frame_state),
        proprioception=np.concatenate(body).astype(np.float32),
        privileged=None
        if any(part is None for part in privileged)
        else np.concatenate(privileged).astype(np.float32),
        actions=np.concatenate(actions).astype(np.float32),
        episode=np.repeat(np.arange(len(length)), np.array(length) + 1),
        step=np.concatenate(step),
        length=np.array(length),
        success=np.array(success, dtype=bool),
        instruction=np.array([place[text] for text in instruction]),
        instructions=instructions,
        init_state=np.array(init_state),
    )
