"""What proposals may look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..interfaces import ForethoughtError, Latent


class Context:
    """What a proposal may depend on, for M nodes of B trees.

    Args:
        samples: The policy's chunks, ``float32 [M, N, H, A]``, finite; with ``rows`` those of the trees,
            ``[B, N, H, A]``.
        latent: State of each node, ``[M, ...]``, or a function that fetches them when somebody asks.
        instruction: M strings, or a function that fetches them.
        seeds: ``int64 [M]``, seed of the row.
        nodes: ``int64 [M]``, number of the node within its tree; 0 is the root.
        rows: ``int64 [M]``, the tree of each node; None: each has its own samples.
        memo: What sources remember as long as the trees' samples stay the same.
        weights: Of the samples by the policy's likelihoods, ``float64 [M, N]`` or with ``rows`` ``[B, N]``,
            each row summing to 1; None where it has none.

    Attributes:
        policy: The policy's chunks, a tree each, ``float32 [B, N, H, A]``.
        rows, seeds, nodes, memo: As given.
        policy_weights: ``weights``, a tree each.
    """

    def __init__(
        self,
        samples: np.ndarray,
        latent: Latent | Callable[[], Latent],
        instruction: Sequence[str] | Callable[[], Sequence[str]],
        seeds: np.ndarray,
        nodes: np.ndarray,
        rows: np.ndarray | None = None,
        memo: dict[str, Any] | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.policy, self.seeds, self.nodes, self.policy_weights = samples, seeds, nodes, weights
        self.rows = np.arange(len(samples)) if rows is None else rows
        self.memo = {} if memo is None else memo
        self._gathered = samples if rows is None else None
        self._latent, self._instruction = latent, instruction

    @property
    def samples(self) -> np.ndarray:
        """The policy's chunks at the root of each node's tree, ``float32 [M, N, H, A]``."""
        if self._gathered is None:
            self._gathered = self.policy[self.rows]
        return self._gathered

    @property
    def weights(self) -> np.ndarray | None:
        """Of ``samples``, ``float64 [M, N]``, or None."""
        return None if self.policy_weights is None else self.policy_weights[self.rows]

    @property
    def latent(self) -> Latent:
        """State of each node, ``[M, ...]``."""
        if callable(self._latent):
            self._latent = self._latent()
        return self._latent

    @property
    def instruction(self) -> Sequence[str]:
        """M strings."""
        given = self._instruction
        if callable(given):
            self._instruction = given = given()
        return given

    def at(self, index: np.ndarray) -> Context:
        """The context of some of the nodes, ``int64 [m]``."""
        return Context(
            self.policy,
            lambda: self.latent[index],
            lambda: [self.instruction[i] for i in map(int, index)],
            self.seeds[index],
            self.nodes[index],
            self.rows[index],
            self.memo,
            self.policy_weights,
        )

    def of_trees(self) -> Context:
        """The same for the roots' samples, a tree each, without states."""
        none = self.seeds[:0]
        return Context(self.policy, self._unknown, (), none, none, weights=self.policy_weights)

    @staticmethod
    def _unknown() -> Latent:
        raise ForethoughtError(
            "A source that varies with the tree alone reads no state: it has the policy's samples. Let its "
            'varies_with be "node".'
        )
