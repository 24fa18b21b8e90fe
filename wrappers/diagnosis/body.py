"""State and instruction: quaternions, degrees, the long way round, prompts, underscores."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import numpy as np

from .data import Range, Seen, Symptom


def look_at_state(seen: Seen, usual: Range | None) -> Iterator[Symptom]:
    what, state = "state", seen.state
    if state is None:
        return
    if not np.isfinite(state).all():
        yield Symptom(what, True, "NaN or infinity", "check the robot's interface")
        return
    problems = list(_layout(state, usual))
    if usual is not None and usual.size == len(state) and not problems:
        width = np.maximum(usual.high - usual.low, 1e-3)
        beyond = np.maximum(usual.low - state, state - usual.high) / width
        if beyond.max() > 1.0:
            index = int(beyond.argmax())
            detail = (
                f"number {index} is {state[index]:.3g}; the training data go from {usual.low[index]:.3g} to "
                f"{usual.high[index]:.3g}"
            )
            problems.append(Symptom(what, None, detail, "compare order, units and frame with the training's"))
    yield from problems or [Symptom(what, False, f"{len(state)} numbers")]


def _layout(state: np.ndarray, usual: Range | None) -> Iterator[Symptom]:
    """Mistakes in position 3, rotation, fingers."""
    what = "state"
    if usual is not None and usual.size != len(state):
        detail = f"{len(state)} numbers where the training data have {usual.size}"
        yield Symptom(what, True, detail, "hand over what the policy was trained on, in its order")
    if len(state) >= 7 and abs(np.linalg.norm(state[3:7]) - 1.0) < 1e-3:
        mend = "as axis-angle: 2 * arccos(w) * (x, y, z) / sin(arccos(w)); robosuite writes (x, y, z, w)"
        expected = usual is not None and usual.size == len(state)
        detail = "numbers 3 to 6 have length 1: a quaternion; LIBERO's policies take an axis-angle there"
        yield Symptom(what, None if expected or usual is None else True, detail, mend)
        return
    if len(state) < 6:
        return
    turn = np.linalg.norm(state[3:6])
    if turn > 2 * np.pi + 0.1:
        yield Symptom(what, True, f"numbers 3 to 5 turn by {turn:.0f}: degrees?", "hand over radians")
    elif usual is not None and usual.size >= 6 and turn > 1e-6:
        other = state[3:6] * (1.0 - 2.0 * np.pi / turn)
        if _outside(state[3:6], usual) > 1.0 > _outside(other, usual):
            mend = (
                "negate the quaternion where its w is negative (or where the training did) before converting"
            )
            detail = f"the axis-angle {np.round(state[3:6], 2).tolist()} is the long way round"
            yield Symptom(what, True, detail, mend)
    elif turn > np.pi + 0.05:
        mend = "negate the quaternion where its w is negative, unless the training data did not either"
        yield Symptom(what, None, f"the axis-angle has length {turn:.2f}, more than half a turn", mend)
    if np.abs(state[:3]).max() > 20.0:
        detail = f"the position is {np.round(state[:3], 1).tolist()}: millimetres?"
        yield Symptom(what, True, detail, "hand over metres")


def _outside(rotation: np.ndarray, usual: Range) -> float:
    """How far an axis-angle lies outside its usual range, in radians."""
    return float(np.maximum(usual.low[3:6] - rotation, rotation - usual.high[3:6]).max())


def look_at_instruction(seen: Seen, known: tuple[str, ...]) -> Iterator[Symptom]:
    what, text = "instruction", seen.instruction
    if not text.strip():
        yield Symptom(what, None, "empty", "hand over the task in words, as the training data have it")
    elif "what action should the robot take" in text.lower():
        mend = "hand over the task alone; the policy's adapter writes the prompt"
        yield Symptom(what, True, "a whole prompt", mend)
    elif known and text not in known:
        near = difflib.get_close_matches(_plain(text), [_plain(one) for one in known], 1, 0.6)
        closest = next((one for one in known if near and _plain(one) == near[0]), None)
        mend = f"write {closest!r}" if closest else f"the models know {list(known)[:3]} …"
        same = closest is not None and _plain(closest) == _plain(text)
        yield Symptom(what, True if same else None, f"{text!r} is not in the training data", mend)
    elif "_" in text and " " not in text:
        yield Symptom(what, True, f"{text!r} has underscores", f"write {text.replace('_', ' ')!r}")
    else:
        yield Symptom(what, False, repr(text))


def _plain(text: str) -> str:
    return "".join(
        letter for letter in text.lower().replace("_", " ") if letter.isalnum() or letter == " "
    ).strip()
