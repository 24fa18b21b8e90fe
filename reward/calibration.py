"""Makes a value mean what it says: of states worth 0.3, the mean of what followed should be 0.3.

A calibration maps a network's logit to a value, the same for all heads, so that their spread stays in units
of the value. It never turns the order of two logits of one network round.

* ``temperature``: σ(a·logit) (Guo et al. 2017, arXiv 1706.04599).
* ``platt``: σ(a·logit + b), which also mends a level that the oversampling of successes has raised.
* ``isotonic``: the monotone staircase closest to the labels, joined by straight lines, with a little of the
  raw value mixed in, so that no two candidates become equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interfaces import ForethoughtError

METHODS = ("temperature", "platt", "isotonic")
KNOTS = 64
RAW = 0.02


@dataclass(frozen=True)
class Calibration:
    """From a logit to a calibrated value.

    Attributes:
        method: One of ``METHODS``.
        slope: a.
        offset: b.
        knots: Logits between which the isotonic map is linear, increasing; empty for the other methods.
        levels: Its values there, not decreasing.
        error: Expected calibration error before and after, measured on episodes that neither the heads nor
            the calibration had learned from; None where not measured.
    """

    method: str
    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    error: tuple[float, float] | None = None

    def __call__(self, logit: Tensor) -> Tensor:
        """Values of logits, of the same shape."""
        raw = torch.sigmoid(self.slope * logit + self.offset)
        if not self.knots:
            return raw
        knots, levels = self._tensors(logit.device)
        upper = torch.bucketize(logit, knots).clamp(1, len(self.knots) - 1)
        left, right = knots[upper - 1], knots[upper]
        part = ((logit - left) / (right - left)).clamp(0, 1)
        stairs = torch.lerp(levels[upper - 1], levels[upper], part)
        return torch.lerp(stairs, raw, RAW)

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._kept:
            pair = torch.tensor(self.knots), torch.tensor(self.levels)
            self._kept[device] = (pair[0].to(device), pair[1].to(device))
        return self._kept[device]

    @cached_property
    def _kept(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        """The map on each device that asked for it: a captured graph must not wait for a copy."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """What a file's header holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """What ``to_dict`` wrote, also after JSON has turned tuples into lists."""
        values: dict[str, Any] = dict(fields)
        values.update({key: tuple(value) for key, value in fields.items() if isinstance(value, list)})
        return cls(**values)


def fit_calibration(method: str, logit: np.ndarray, label: np.ndarray) -> Calibration:
    """The calibration under which logits ``[n]`` predict labels ``[n]`` in [0, 1] best.

    Raises:
        ForethoughtError: The method is unknown, or the labels are all the same.
    """
    logit, label = np.asarray(logit, np.float64), np.asarray(label, np.float64)
    if method not in METHODS:
        raise ForethoughtError(f"Unknown calibration {method!r}; known are none, {', '.join(METHODS)}.")
    if logit.shape != label.shape or logit.ndim != 1 or not len(label) or np.ptp(label) == 0:
        raise ForethoughtError(
            f"A calibration needs logits [n] and labels [n] that differ; got {logit.shape} and "
            f"{label.shape}. "
            "Give more episodes, successes and failures, or set calibration=none."
        )
    if method == "isotonic":
        return _isotonic(logit, label)
    from sklearn.linear_model import LogisticRegression

    # A label between 0 and 1 is a success of weight y and a failure of weight 1 - y.
    features = np.concatenate([logit, logit])[:, None]
    outcome = np.repeat([1, 0], len(logit))
    weight = np.concatenate([label, 1 - label])
    model = LogisticRegression(C=1e6, fit_intercept=method == "platt", max_iter=1000)
    model.fit(features, outcome, sample_weight=weight)
    slope, offset = float(model.coef_[0, 0]), float(np.ravel(model.intercept_)[0])
    if slope <= 0:
        raise ForethoughtError(
            "The value orders held-out states the wrong way round, which no calibration can mend. Train "
            "longer, "
            "on more episodes, or set calibration=none."
        )
    return Calibration(method, slope, offset)


def _isotonic(logit: np.ndarray, label: np.ndarray) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    stairs = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(logit, label)
    knots = np.unique(np.quantile(logit, np.linspace(0, 1, KNOTS)))
    if len(knots) < 2:
        raise ForethoughtError("All held-out states have one value: there is nothing to calibrate.")
    levels = np.maximum.accumulate(stairs.predict(knots))
    return Calibration(
        "isotonic", knots=tuple(float(knot) for knot in knots), levels=tuple(float(y) for y in levels)
    )


def calibration_error(value: np.ndarray, label: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean over states of |mean value − mean label| of the state's bin.

    Bins hold equally many states (Nixon et al. 2019, arXiv 1904.01685): most values of a hard task are near
    0, and bins of equal width would look at little else than the first.

    Args:
        value: ``[n]``.
        label: ``[n]``, in [0, 1].
        bins: How many.
    """
    value, label = np.ravel(np.asarray(value, np.float64)), np.ravel(np.asarray(label, np.float64))
    if value.shape != label.shape or not len(value):
        raise ForethoughtError(f"Values and labels must be [n] alike; got {value.shape} and {label.shape}.")
    order = np.argsort(value, kind="stable")
    groups: Sequence[np.ndarray] = [part for part in np.array_split(order, bins) if len(part)]
    return float(
        sum(abs(value[part].mean() - label[part].mean()) * len(part) for part in groups) / len(value)
    )
