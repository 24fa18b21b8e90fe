"""Model servers of the real vla-eval, wrapped. `make test-serving` has its environment."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest
from serving_fakes import HORIZON, SIZE, SPEC, Line, Onwards, never, tree_planner

import forethought
from forethought.interfaces import ForethoughtError
from forethought.wrappers.models import Models
from forethought.wrappers.policies import vla_eval as adapter

REASON = "vla-eval has an environment of its own: make test-serving"
predict = pytest.importorskip("vla_eval.model_servers.predict", reason=REASON)


class Toy(predict.PredictModelServer):
    """A policy as the harness has them: raw chunks in the benchmark's units."""

    def __init__(self, steps: int = HORIZON, **options) -> None:
        super().__init__(**{"chunk_size": HORIZON, **options})
        self.steps, self.starts, self.ends = steps, [], []

    def predict(self, obs, ctx):
        chunk = np.full((self.steps or 1, SIZE), 0.125)
        chunk[:, 5], chunk[:, 6] = float(obs["states"][0]), 1.0
        return {"actions": chunk if self.steps else chunk[0]}

    async def on_episode_start(self, config, ctx):
        self.starts.append(config)
        await super().on_episode_start(config, ctx)

    async def on_episode_end(self, result, ctx):
        self.ends.append(result)
        await super().on_episode_end(result, ctx)

    def get_action_spec(self):
        return {}

    def get_observation_spec(self):
        return {}


class ToyBatch(Toy):
    """One that infers for several sessions at once."""

    def predict_batch(self, obs_batch, ctx_batch):
        return [Toy.predict(self, obs, ctx) for obs, ctx in zip(obs_batch, ctx_batch, strict=True)]


def seen(place: float = 0.0) -> dict:
    state = np.zeros(8, np.float32)
    state[0] = place
    image = np.zeros((6, 6, 3), np.uint8)
    return {"images": {"agentview": image, "wrist": image}, "task_description": "push", "states": state}


MODELS = Models(Line(), Onwards(), horizon=HORIZON, cameras=("agentview_rgb",), action_spec=SPEC)


def wrapped(server, planner=None, **options):
    if planner is not None:
        return forethought.wrap(server, MODELS, planner=planner, **options)
    return forethought.wrap(server, MODELS, simulations=24, depth=2, reuse=True, bandwidths=(0.2,))


def episodes(server, clients: int = 1, count: int = 2, steps: int = 6) -> list[list[np.ndarray]]:
    """What clients of the real harness get, each in turn through some episodes on its own line."""
    import anyio
    from vla_eval.connection import Connection
    from vla_eval.model_servers.serve import serve_async

    taken: list[list[np.ndarray]] = [[] for _ in range(clients)]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]

    async def client(number: int) -> None:
        async with Connection(f"ws://127.0.0.1:{port}") as connection:
            for episode in range(count):
                await connection.start_episode({"task": {"name": f"task {episode}"}})
                place = -0.8 + 0.3 * number
                for _ in range(steps):
                    action = (await connection.act(seen(place)))["actions"]
                    taken[number].append(np.array(action))
                    place += 0.05 * float(action[0])
                await connection.end_episode({"success": True})

    async def main() -> None:
        async with anyio.create_task_group() as group:
            await group.start(serve_async, server, "127.0.0.1", port)
            async with anyio.create_task_group() as clients_group:
                for number in range(clients):
                    clients_group.start_soon(client, number)
            group.cancel_scope.cancel()

    asyncio.run(main())
    return taken


def test_it_is_found_by_what_it_is():
    assert adapter.matches(Toy()) and adapter.matches(ToyBatch())
    assert not adapter.matches(object()) and not adapter.matches(predict)
    assert isinstance(wrapped(Toy()), Toy)


@pytest.mark.parametrize("kind", [Toy, ToyBatch])
@pytest.mark.parametrize("options", [{}, {"steps": HORIZON + 3}, {"chunk_size": 2}, {"chunk_size": None}])
def test_a_policy_that_is_never_overridden_acts_as_if_it_were_not_wrapped(kind, options):
    if kind is ToyBatch:
        options = {**options, "max_batch_size": 4}
    if options.get("chunk_size", HORIZON) is None:
        options = {**options, "steps": 0}  # single actions
    alone, kept = episodes(kind(**options), 2), episodes(wrapped(kind(**options), never()), 2)
    assert np.array_equal(alone, kept) and len(alone[0]) == 12


@pytest.mark.parametrize("kind", [Toy, ToyBatch])
def test_with_a_search_the_robot_goes_further_and_episodes_are_told(kind):
    options = {"max_batch_size": 4} if kind is ToyBatch else {}
    server = wrapped(kind(**options))
    alone, searched = episodes(kind(**options)), episodes(server)
    assert np.sum(searched, axis=1)[0, 0] > np.sum(alone, axis=1)[0, 0]
    assert len(server.starts) == len(server.ends) == 2
    assert server.forethought.last.simulations[0] == 24


def test_sessions_get_the_actions_that_they_would_get_alone():
    together = episodes(wrapped(Toy()), clients=3)
    for number in (0, 2):
        server = wrapped(Toy())
        alone = episodes(server, clients=number + 1)[number]
        assert np.array_equal(alone, together[number])
    assert not np.array_equal(together[0], together[1])


def test_every_session_has_a_planner_of_its_own_that_goes_with_it(monkeypatch):
    made = []
    beside = forethought.wrappers.lookahead.Lookahead.beside
    monkeypatch.setattr(
        forethought.wrappers.lookahead.Lookahead,
        "beside",
        lambda self, policy: made.append(beside(self, policy)) or made[-1],
    )
    server = wrapped(Toy(), tree_planner())
    episodes(server, clients=2, count=2)
    planners = {id(one.controller.planner) for one in made}
    assert len(made) == 4 and len(planners) == 4


def test_what_does_not_fit_is_said():
    with pytest.raises(ForethoughtError, match="continuous_inference"):
        wrapped(Toy(continuous_inference=True))
    with pytest.raises(ForethoughtError, match="chunk_size=4"):
        wrapped(Toy(chunk_size=8))


def test_an_observation_that_the_models_cannot_read_is_told_to_the_harness():
    server = wrapped(Toy())
    context = type("Context", (), {"session_id": "a"})()
    with pytest.raises(ForethoughtError, match="agentview_rgb"):
        server.predict({"images": {}, "task_description": "push", "states": np.zeros(8)}, context)
