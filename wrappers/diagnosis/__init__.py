"""The commonest mistakes between a policy and a robot, from one observation and a handful of actions.

None of them raises anything, each costs days: a camera that is upside down or swaps red and blue, a
quaternion where an axis-angle is expected, actions that are still normalised, a gripper with the sign of
another data set. What is compared with comes from where it can be had: the models' memory of recorded chunks,
an observation of the training data, or the statistics that came with the policy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...interfaces import ActionSpec
from ..models import Models
from .actions import look_at_actions, look_at_gripper
from .body import look_at_instruction, look_at_state
from .data import Range, Seen, Symptom, read_statistics
from .images import look_at_images

__all__ = ["Range", "Seen", "Symptom", "diagnose", "read_statistics"]


def diagnose(
    seen: Seen,
    *,
    models: Models | None = None,
    spec: ActionSpec | None = None,
    reference: Mapping[str, np.ndarray] | None = None,
    statistics: Mapping[str, Range] | None = None,
) -> list[Symptom]:
    """What looks wrong, and what was looked at and looks right.

    Args:
        seen: What the policy saw and did.
        models: Models of the task; their memory tells how actions usually are and what the robot did in
            similar states.
        spec: Meaning of the actions; by default the models'.
        reference: Images of the training data by camera, of any moment.
        statistics: Ranges of the training data under ``action`` and ``state``, see ``read_statistics``.
    """
    spec = spec or (models.action_spec if models else None)
    memory = models.memory if models else None
    statistics = dict(statistics or {})
    if memory is not None and "action" not in statistics:
        chunks = memory.all_chunks().reshape(-1, memory.all_chunks().shape[-1])
        statistics["action"] = Range(*np.percentile(chunks, [1, 99], axis=0))
    parts = (
        look_at_images(seen, reference or {}, models),
        look_at_state(seen, statistics.get("state")),
        look_at_instruction(seen, tuple(getattr(memory, "instructions", ()))),
        look_at_actions(seen, spec, statistics.get("action")),
        look_at_gripper(seen, spec, models),
    )
    return [symptom for part in parts for symptom in part]
