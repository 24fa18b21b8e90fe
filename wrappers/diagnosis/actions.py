"""Actions: still normalised, degrees, places, a gripper with another sign or scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...interfaces import ActionSpec
from ..models import Models
from ..observations import from_call
from .data import Range, Seen, Symptom


def look_at_actions(seen: Seen, spec: ActionSpec | None, usual: Range | None) -> Iterator[Symptom]:
    what, actions = "actions", seen.actions
    size = actions.shape[1]
    if not np.isfinite(actions).all():
        yield Symptom(
            what, True, "NaN or infinity", "check the inputs of the policy, its precision, its statistics"
        )
        return
    for name, expected in (("models", spec and spec.size), ("training data", usual and usual.size)):
        if expected and expected != size:
            mend = "hand over the action as it goes to the robot, without padding"
            yield Symptom(what, True, f"{size} numbers where the {name} have {expected}", mend)
            return
    if len(actions) > 2 and np.ptp(actions, axis=0).max() < 1e-6:
        mend = "check that the policy gets a new observation every time, and is reset between episodes"
        yield Symptom(what, None, f"all {len(actions)} are the same", mend)
        return
    gripper = spec.gripper if spec else (size - 1,)
    arm = [index for index in range(size) if index not in gripper]
    problems = [*_scale(actions, arm, usual), *_places(seen, spec)]
    if spec and not problems:
        low, high = spec.low[arm] - 1e-3, spec.high[arm] + 1e-3
        share = ((actions[:, arm] < low) | (actions[:, arm] > high)).mean()
        if share > 0.05:
            mend = "unnormalise with the statistics of this robot, or correct the bounds of the ActionSpec"
            detail = f"{100 * share:.0f} % of the numbers are outside the bounds of the action"
            problems.append(Symptom(what, share > 0.3 or None, detail, mend))
    yield from problems or [Symptom(what, False, f"{len(actions)} actions of {size} numbers")]


def _scale(actions: np.ndarray, arm: list[int], usual: Range | None) -> Iterator[Symptom]:
    if usual is None or len(actions) < 4:
        return
    width = np.maximum(np.abs(usual.low), np.abs(usual.high))[arm]
    reach = np.abs(actions[:, arm]).max(axis=0)
    moving = width > 1e-6
    ratio = float(np.median(reach[moving] / width[moving])) if moving.any() else 1.0
    if ratio > 3.0 and reach.max() <= 1.05 and width.max() < 0.7:
        mend = "unnormalise: (a + 1) / 2 * (q99 - q01) + q01 with the data set's own statistics (unnorm_key)"
        detail = f"fill [-1, 1] where the training data reach {width.max():.2g}: still normalised"
        yield Symptom("actions", True, detail, mend)
    elif ratio > 3.0:
        near = next((f": {words}" for size, words in ((57.3, "degrees?"), (1000, "millimetres?"))
                     if 0.5 < ratio / size < 2.0), "")  # fmt: skip
        detail = f"{ratio:.0f} times as large as the training data{near}"
        yield Symptom("actions", True, detail, "check units and statistics (unnorm_key)")
    elif ratio < 0.05:
        detail = f"{1 / max(ratio, 1e-6):.0f} times smaller than the training data"
        yield Symptom("actions", None, detail, "check that they are not scaled twice, and the unnorm_key")


def _places(seen: Seen, spec: ActionSpec | None) -> Iterator[Symptom]:
    """Places where displacements are expected."""
    if spec is None or len(spec.position) != 3 or seen.state is None or len(seen.state) < 3:
        return
    places = seen.actions[:, list(spec.position)]
    near = np.abs(places - seen.state[:3]).max() < 0.15
    if near and np.linalg.norm(seen.state[:3]) > 0.4 and np.linalg.norm(places, axis=1).min() > 0.3:
        detail = "the positions are near the end effector's own: places, not displacements"
        yield Symptom(
            "actions", None, detail, "subtract the end effector's position, or say so in the Limits"
        )


def look_at_gripper(seen: Seen, spec: ActionSpec | None, models: Models | None) -> Iterator[Symptom]:
    what = "gripper"
    if spec is None or len(spec.gripper) != 1 or seen.actions.shape[1] != spec.size:
        return
    index = spec.gripper[0]
    said, low, high = seen.actions[:, index], float(spec.low[index]), float(spec.high[index])
    if not np.isfinite(said).all():
        return
    if low < -0.5 and said.min() > -0.1 and said.max() < 1.1 and (said < 0.4).any():
        mend = (
            f"this looks like 1 open and 0 closed; the robot takes {low:g} to {high:g}: "
            "wrap(gripper_open=…), or convert"
        )
        detail = f"from {said.min():.2g} to {said.max():.2g}, where the bounds are {low:g} and {high:g}"
        yield Symptom(what, True, detail, mend)
        return
    middle = 0.5 * (low + high)
    if models is not None and models.memory is not None and seen.state is not None:
        closed = _recorded_gripper(seen, models, index, middle)
        share = float((said > middle).mean())
        if closed is not None and abs(closed - share) > 0.8:
            words = f"{high if share > 0.5 else low:g}"
            mend = "invert the sign of the gripper, unless the policy is meant to do otherwise here"
            detail = f"{words} throughout, where the recorded episodes say the other in similar states"
            yield Symptom(what, None, detail, mend)
            return
    half = (np.abs(said - middle) < 0.25 * (high - low)).mean()
    if spec.gripper_is_binary and half > 0.5:
        mend = "binarise it where the training did, or set gripper_is_binary=False"
        yield Symptom(what, None, f"{100 * half:.0f} % neither open nor closed", mend)
    else:
        yield Symptom(what, False, f"from {said.min():.2g} to {said.max():.2g}")


def _recorded_gripper(seen: Seen, models: Models, index: int, middle: float) -> float | None:
    """Share of recorded steps in similar states with the gripper above the middle, or None if unknown."""
    try:
        entries = {**seen.images, "state": seen.state, "instruction": seen.instruction}
        observation = from_call((entries,), {}, models.cameras)
        near = models.memory.nearest(models.world_model.encode(observation), observation.instruction, 16)
    except Exception:  # the other symptoms say why the observation cannot be used
        return None
    return float((near[0, :, :, index] > middle).mean())
