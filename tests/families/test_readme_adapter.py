"""Who has a policy of no known family writes the adapter that the README shows. This is that adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forethought

README = Path(forethought.__file__).parent / "README.md"


@pytest.fixture(scope="module")
def code() -> str:
    if not README.is_file():
        pytest.skip("needs the source tree")
    after = README.read_text(encoding="utf-8").split("<!-- adapter:")[1]
    return after.split("```python\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def adapter(code) -> Any:
    names: dict[str, Any] = {}
    exec(code, names)  # what the README says is what is tested
    return names["MyAdapter"]


def network(row: forethought.Observation, draw: np.random.Generator) -> np.ndarray:
    """Somebody's network: one row in, one chunk out, by chance."""
    chunk = 0.2 * draw.standard_normal((8, 7)) + row.proprioception[0, 0]
    chunk[:, 6] = 1.0
    return chunk


@pytest.fixture
def observation() -> forethought.Observation:
    pictures = {"agentview_rgb": np.zeros((2, 6, 6, 3), np.uint8)}
    body = np.array([[0.1] + [0.0] * 7, [0.3] + [0.0] * 7], np.float32)
    return forethought.Observation(pictures, body, ("open it", "close it"))


def test_it_has_fewer_than_20_lines(code):
    assert len([line for line in code.splitlines() if line.strip()]) < 20


def test_it_is_a_policy(adapter):
    assert isinstance(adapter(network), forethought.Policy)


def test_it_is_wrapped_and_planned(adapter, observation, planner):
    policy, plans = adapter(network), planner("rising")
    wrapped = forethought.wrap(policy, planner=plans)
    planned = wrapped.propose(observation, 1, np.array([3, 4])).chunks
    assert planned.shape == (2, 1, 8, 7)
    assert np.allclose(planned[0, 0, :, 0], 0.1 * np.arange(1, 9))
    assert plans.samples[0].chunks.shape == (2, 6, 8, 7)
    assert len(np.unique(plans.samples[0].chunks[..., 0, 0])) == 12
    assert isinstance(wrapped, adapter) and forethought.unwrap(wrapped) is policy


def test_a_kept_chunk_is_its_own_and_the_seed_decides(adapter, observation, planner):
    policy = adapter(network)
    wrapped, seeds = forethought.wrap(policy, planner=planner()), np.array([3, 4])
    kept = wrapped.propose(observation, 1, seeds).chunks
    alone = policy.propose(observation, 1, seeds).chunks
    assert np.array_equal(kept, policy.action_spec.clip(alone))
    assert np.array_equal(alone[:, 0], policy.propose(observation, 5, seeds).chunks[:, 0])
