"""Values from futures that were imagined once, on a small world whose true values are known."""

import line_world
import numpy as np
import pytest
import torch
from line_world import DISCOUNT, GOAL, HORIZON, PLACES, TRAP

from forethought.experiments.training.dreams import DreamBatch, Dreams, dreamed_loss
from forethought.experiments.training.loop import fit
from forethought.interfaces import ForethoughtError
from forethought.reward.schemes import find_scheme, schemes
from forethought.reward.value import ValueEnsemble, ValueModel


@pytest.fixture(scope="module")
def world():
    return line_world.walks(600)


def imagine(latent, chunks):
    following, _ = line_world.LineDynamics()(latent, torch.from_numpy(chunks))
    return following


def dreams_of(world, scheme=None, **options):
    data, encoded = world
    every = np.arange(len(data.frame_state))
    starts = every[data.complete(every, HORIZON) & (data.step < data.length[data.episode])]
    settings = {"horizon": HORIZON, "discount": DISCOUNT, "batch": 256, "members": 2, "increments": (0,)}
    settings |= {"uses_failures": scheme is None or scheme.uses_failures}
    starts = np.random.default_rng(0).permutation(starts)[:2000]
    keys = encoded.frames.numpy()
    return Dreams(data, encoded.frames, every, starts, imagine, keys, **settings | options)


@pytest.mark.parametrize("name", sorted(name for name in schemes() if schemes()[name].uses_failures))
def test_every_scheme_learns_from_them(world, name, tmp_path):
    scheme = find_scheme({name: {"rate": 0.05}} if name == "temporal_difference" else name)
    torch.manual_seed(0)
    network = ValueEnsemble(PLACES + line_world.CONTEXT_SIZE, members=2, hidden=32)
    loss = dreamed_loss(dreams_of(world, scheme), scheme)
    options = {"learning_rate": 1e-2, "checkpoint": tmp_path / "c", "seed": 0, "average": 0.98}
    fit(scheme.learner(network), loss, title=name, steps=400, **options)
    model = ValueModel(network, name)
    value = model.score(line_world.latents(np.arange(PLACES)), ["task 0"] * PLACES).value
    assert (np.diff(value[: GOAL + 1]) > 0).all(), value
    assert value[TRAP] < 0.5 * value[: GOAL + 1].min()
    if name in ("success_discounted", "temporal_difference"):
        np.testing.assert_allclose(value, line_world.true_values(), atol=0.08)


def batch_of(world, **options):
    source = dreams_of(world, **options)
    return source, DreamBatch(source, torch.Generator().manual_seed(0))


def test_dreams_are_learned_from_as_what_they_became(world):
    source, batch = batch_of(world)
    places = line_world.place_of(world[1].frames)
    assert np.array_equal(line_world.place_of(batch.moments.latent[0]), places[batch.rows])
    assert len(batch.rows) == source.batch + source.batch // 8
    ends = batch.rows[source.batch - source.batch // 3 :][: source.batch // 8]
    assert (places[ends] == GOAL).all()


def test_moments_have_no_weight_in_episodes_that_a_head_leaves_out(world):
    source, batch = batch_of(world)
    episode = world[0].episode[batch.rows]
    assert np.array_equal(batch.moments.weight.numpy() > 0, source.mine[:, episode])
    assert 0 < source.mine.mean() < 1


def test_rivals_are_two_futures_of_one_start_by_chunks_of_two_episodes(world):
    source, batch = batch_of(world)
    own, other = batch.rivals()
    data, places = world[0], line_world.place_of(world[1].frames)
    latent, state, known = source.rivals
    assert known.mean() > 0.5
    assert (data.episode[state] != data.episode[source.state])[known].all()
    assert (places[state] == places[source.state])[known].all()  # near means the same place here
    after = line_world.place_of(latent)
    assert np.array_equal(after[known], places[data.after(state, HORIZON)][known])
    weight = (own.weight * other.weight).numpy() > 0
    assert (line_world.place_of(own.latent) != line_world.place_of(other.latent))[weight].any()
    assert not other.weight.numpy()[:, ~known[batch.dream]].any()
    assert np.array_equal(other.step[0], data.step[data.after(state[batch.dream], HORIZON)])


def test_following_moments_are_one_chunk_later(world):
    _, batch = batch_of(world)
    now, then = batch.moments, batch.following()
    left = now.length - now.step
    assert np.array_equal(then.step - now.step, np.minimum(left, HORIZON))
    assert (then.weight.numpy()[(left < HORIZON) & ~now.success] == 0).all()


def test_a_rewound_chunk_goes_back_to_where_it_came_from(world):
    source, batch = batch_of(world)
    data, places = world[0], line_world.place_of(world[1].frames)
    state, rewound = source.state[batch.dream], batch.rewound()
    earlier = state - np.minimum(data.step[state], HORIZON)
    assert np.array_equal(rewound.step[0], data.step[earlier])
    inside = (places[earlier] > 1) & (places[state] > 1) & (places[state] < GOAL)
    assert inside.sum() > 10
    assert np.array_equal(line_world.place_of(rewound.latent[0])[inside], places[earlier][inside])


def test_what_cannot_be_learned_says_so(world):
    data, encoded = world
    failed = np.flatnonzero(~data.success[data.episode])
    with pytest.raises(ForethoughtError, match="No episode of the rollouts succeeded"):
        Dreams(
            data,
            encoded.frames,
            failed,
            failed[:10],
            imagine,
            encoded.frames.numpy(),
            horizon=HORIZON,
            discount=DISCOUNT,
            batch=8,
            members=2,
        )
    source, batch = batch_of(world, increments=())
    with pytest.raises(ForethoughtError, match="Rewinding negates the increments"):
        batch.rewound()
    assert source.batch == 256
