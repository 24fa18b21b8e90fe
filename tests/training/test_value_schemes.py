"""Each scheme learns a value of a small world whose true values are known."""

import line_world
import numpy as np
import pytest
import torch
from line_world import DISCOUNT, GOAL, HORIZON, PLACES, TRAP

from forethought.experiments.training.loop import fit
from forethought.experiments.training.values import (
    ValueData,
    _left_out,
    calibrate,
    chunk_value_loss,
    value_loss,
)
from forethought.interfaces import ForethoughtError
from forethought.reward.chunk_value import beside
from forethought.reward.schemes import find_scheme, schemes
from forethought.reward.schemes.outcome import DISCOUNTED
from forethought.reward.value import ValueEnsemble, ValueModel
from forethought.text import text_features


@pytest.fixture(scope="module")
def world():
    return line_world.walks(600)


def source_of(world, scheme, **options):
    data, encoded = world
    return ValueData(
        data,
        encoded,
        line_world.LineDynamics(),
        horizon=HORIZON,
        discount=DISCOUNT,
        batch=128,
        uses_failures=scheme.uses_failures,
        increments=(0,),
        **options,
    )


@pytest.fixture(scope="module")
def learned(world, tmp_path_factory):
    """Values of all places, by what was learned; each scheme is trained once."""
    kept = {}

    def values(wanted, steps=500):
        if str(wanted) not in kept:
            scheme = find_scheme(wanted)
            torch.manual_seed(0)
            network = ValueEnsemble(PLACES + line_world.CONTEXT_SIZE, members=2, hidden=32)
            fit(
                scheme.learner(network),
                value_loss(source_of(world, scheme), scheme),
                title=scheme.name,
                steps=steps,
                learning_rate=1e-2,
                checkpoint=tmp_path_factory.mktemp("values") / "checkpoint",
                seed=0,
                average=0.98,
            )
            model = ValueModel(network, scheme.name)
            kept[str(wanted)] = model.score(line_world.latents(np.arange(PLACES)), ["task 0"] * PLACES).value
        return kept[str(wanted)]

    return values


@pytest.mark.parametrize("name", ["success_discounted", {"temporal_difference": {"rate": 0.05}}])
def test_the_mean_over_what_happened_is_the_value_of_who_acted(learned, name):
    np.testing.assert_allclose(learned(name), line_world.true_values(), atol=0.06)


def test_a_value_of_chunks_is_that_of_who_starts_with_the_chunk_and_goes_on_as_recorded(world, tmp_path):
    torch.manual_seed(0)
    network = ValueEnsemble(PLACES + line_world.CONTEXT_SIZE + HORIZON * 2, members=2, hidden=32)
    loss = chunk_value_loss(source_of(world, DISCOUNTED), DISCOUNTED)
    fit(network, loss, title="chunks", steps=500, learning_rate=1e-2, checkpoint=tmp_path / "c", seed=0)
    places, true = np.arange(1, GOAL - 1), line_world.true_values()
    for actions, after in (
        ((line_world.RIGHT, line_world.RIGHT), places + 2),
        ((line_world.RIGHT, line_world.LEFT), places),
        ((line_world.DROP, line_world.DROP), np.full(len(places), TRAP)),
    ):
        chunk = torch.from_numpy(np.stack(actions)).expand(len(places), -1, -1)
        inputs = beside(line_world.latents(places), chunk)
        value = ValueModel(network, "chunks").score(inputs, ["task 0"] * len(places)).value
        np.testing.assert_allclose(value, DISCOUNT**HORIZON * true[after], atol=0.08)


def test_an_expectile_leans_towards_the_best_that_happened(learned):
    value = learned({"expectile": {"expectile": 0.95, "rate": 0.05}})
    true, best = line_world.true_values(), line_world.best_values()
    assert (value[:5] > true[:5] + 0.3 * (best - true)[:5]).all()
    assert (value < best + 0.03).all()


@pytest.mark.parametrize("name", sorted(name for name in schemes() if schemes()[name].uses_failures))
def test_whoever_learns_from_failures_orders_all_places(learned, name):
    value = learned(name)
    assert (np.diff(value[: GOAL + 1]) > 0).all(), value
    assert value[TRAP] < 0.5 * value[: GOAL + 1].min()


@pytest.mark.parametrize("name", sorted(name for name in schemes() if not schemes()[name].uses_failures))
def test_whoever_leaves_failures_out_does_not_know_the_trap(learned, name):
    value = learned(name)
    assert (np.diff(value[: GOAL + 1]) > 0).all(), value
    assert value[TRAP] > 0.5 * value[0]


def test_rewinding_knows_what_undone_work_looks_like(world, learned, tmp_path):
    """Undone work leaves a mark that no record shows: only who imagines it learns to see it."""

    class Marking(line_world.LineDynamics):
        def forward(self, latent, chunk):
            following, logit = super().forward(latent, chunk)
            undone = line_world.place_of(following) < line_world.place_of(latent)
            following[..., TRAP + 1] = torch.from_numpy(undone).float()
            return following, logit

    marked = line_world.latents(np.array([3]))
    marked[..., TRAP + 1] = 1.0
    found = {}
    for name in ("progress_successes_only", "progress_rewind_successes_only"):
        scheme, (data, encoded) = find_scheme(name), world
        right = data.actions[:, 0] > 0  # a world in which nobody ever went back
        forward = [
            np.flatnonzero(data.episode == episode)
            for episode in range(len(data.length))
            if data.success[episode] and right[data.episode == episode].all()
        ]
        data, encoded = _only(data, encoded, forward)
        source = source_of((data, encoded), scheme)
        source.dynamics = Marking()
        torch.manual_seed(0)
        network = ValueEnsemble(PLACES + line_world.CONTEXT_SIZE, members=2, hidden=32)
        loss = value_loss(source, scheme)
        fit(network, loss, title=name, steps=300, learning_rate=1e-2, checkpoint=tmp_path / name, seed=0)
        found[name] = ValueModel(network, name).score(marked, ["task 0"]).value[0]
    assert found["progress_rewind_successes_only"] < found["progress_successes_only"] - 0.05


def _only(data, encoded, episodes):
    from dataclasses import replace

    rows = np.concatenate(episodes)
    names = data.episode[[part[0] for part in episodes]]
    cut = replace(
        data,
        frame_state=np.arange(len(rows)),
        actions=data.actions[rows],
        proprioception=data.proprioception[rows],
        episode=np.repeat(np.arange(len(episodes)), [len(part) for part in episodes]),
        step=data.step[rows],
        length=data.length[names],
        success=data.success[names],
        instruction=data.instruction[names],
        init_state=data.init_state[names],
    )
    return cut, replace(encoded, frames=encoded.frames[rows])


def batch_of(world, name="success_discounted", seed=0, **options):
    source = source_of(world, find_scheme(name), **options)
    return source, source.draw(torch.Generator().manual_seed(seed))


def test_predicted_latents_are_learned_from_as_what_they_became(world):
    source, batch = batch_of(world)
    places = line_world.place_of(world[1].frames)
    moments = batch.moments
    rows = slice(source.batch, 2 * source.batch)
    known = moments.weight[:, rows].numpy() > 0
    assert np.array_equal(line_world.place_of(moments.latent[:, rows])[known], places[batch.after][known])
    assert np.array_equal(moments.step[:, rows], world[0].step[batch.after])


def test_following_moments_are_one_chunk_later(world):
    _, batch = batch_of(world)
    now, then = batch.moments, batch.following()
    left = now.length - now.step
    assert np.array_equal(then.step - now.step, np.minimum(left, HORIZON))
    cut_short = (left < HORIZON) & ~now.success
    assert cut_short.any() and (then.weight.numpy()[cut_short] == 0).all()
    assert (then.weight.numpy()[~cut_short] == 1).all()


def test_rivals_are_two_futures_of_one_start_by_chunks_of_two_episodes(world):
    source, batch = batch_of(world)
    own, other = batch.rivals()
    weight = (own.weight * other.weight).numpy() > 0
    assert weight.mean() > 0.3
    start = line_world.place_of(batch.start[:, : source.batch // 2])
    end = line_world.place_of(other.latent)
    assert (np.abs(end - start)[weight & (end != TRAP)] <= HORIZON).all()
    assert (line_world.place_of(own.latent) != end)[weight].any()
    near = source.near
    data = world[0]
    assert (data.episode[near[near >= 0]] != np.repeat(data.episode, (near >= 0).sum(1))).all()


def test_rivals_of_episodes_that_a_head_leaves_out_have_no_weight(world):
    source, batch = batch_of(world)
    source.sample.mine = [np.zeros_like(mine) for mine in source.sample.mine]
    assert (batch.rivals()[1].weight == 0).all()


def test_a_rewound_chunk_goes_back_to_where_it_came_from(world):
    _, batch = batch_of(world)
    data, places = world[0], line_world.place_of(world[1].frames)
    rewound = batch.rewound()
    earlier = batch.state - np.minimum(data.step[batch.state], HORIZON)
    assert np.array_equal(rewound.step, data.step[earlier])
    assert (rewound.weight.numpy() > 0).sum() == (data.step[batch.state] > 0).sum()
    inside = (places[batch.state] < GOAL) & (places[earlier] > 1)  # no wall, no trap: undoing undoes
    inside &= places[batch.state] > 1
    assert inside.sum() > 20
    assert np.array_equal(line_world.place_of(rewound.latent)[inside], places[earlier][inside])


def test_a_rewound_gripper_returns_to_what_was_commanded_before(world):
    source, batch = batch_of(world)
    seen = []
    source.dynamics.forward = lambda latent, chunk: (seen.append(chunk), (latent, None))[1]
    data = world[0]
    data.actions[:, 1] = np.arange(len(data.actions))  # as if the gripper told the time
    try:
        batch.rewound()
    finally:
        data.actions[:, 1] = 0
    late = data.step[batch.state] > HORIZON + 1
    gripper = seen[0][..., 1].numpy()[late]
    assert np.array_equal(gripper, batch.state[late][:, None] - 2 - np.arange(HORIZON))


def test_rewinding_needs_to_know_what_an_increment_is(world):
    source, batch = batch_of(world)
    source.increments = []
    with pytest.raises(ForethoughtError, match="increments"):
        batch.rewound()


@pytest.fixture(scope="module")
def two_tasks():
    return line_world.walks(60, instructions=2)


def test_mismatched_instructions_are_worth_nothing(two_tasks):
    data, encoded = two_tasks
    told = 1 - data.instruction[data.episode[data.frame_state]]
    other = encoded.frames.clone()
    other[:, -1] = 5.0
    _, batch = batch_of(two_tasks, mismatched=0.25, misread=(other, told))
    moments = batch.moments
    wrong = moments.mismatched
    assert wrong.sum(axis=1).tolist() == [32, 32]
    assert (moments.latent[..., -1].numpy() == 5)[wrong].all() and not moments.success[wrong].any()
    truth = data.instruction[data.episode[batch.rows]]
    words = text_features(data.instructions)
    spoken = np.where(wrong, 1 - truth, truth)
    assert torch.equal(moments.text, words[spoken])


@pytest.mark.parametrize("name", sorted(schemes()))
def test_every_scheme_takes_mismatched_instructions(two_tasks, name):
    """With more of them the loss of a value that ignores the instruction rises."""
    data, encoded = two_tasks
    told = 1 - data.instruction[data.episode[data.frame_state]]
    scheme = find_scheme(name)
    torch.manual_seed(0)
    network = ValueEnsemble(PLACES + line_world.CONTEXT_SIZE, members=2, hidden=8)
    with torch.no_grad():
        network.biases[-1].fill_(4.0)  # says yes to everything
    losses = []
    for share in (0.0, 1.0):
        source = source_of(two_tasks, scheme, mismatched=share, misread=(encoded.frames, told))
        learner = scheme.learner(network)
        losses.append(scheme.loss(learner, source.draw(torch.Generator().manual_seed(0))).item())
    assert losses[1] > losses[0]


def test_mismatched_instructions_need_a_second_task(world):
    with pytest.raises(ForethoughtError, match="two instructions"):
        batch_of(world, mismatched=0.5)


def test_a_scheme_with_other_numbers(world):
    assert find_scheme({"expectile": {"expectile": 0.9}}).expectile == 0.9
    with pytest.raises(ForethoughtError, match="options"):
        find_scheme({"expectile": {"tau": 0.9}})
    with pytest.raises(ForethoughtError, match="known are"):
        find_scheme("nonsense")


def test_a_target_network_follows_slowly_and_is_in_the_checkpoint():
    scheme = find_scheme("expectile")
    network = ValueEnsemble(4, members=2, hidden=8)
    learner = scheme.learner(network)
    before = learner.target.weights[0].clone()
    with torch.no_grad():
        network.weights[0].add_(1.0)
    learner.follow(0.1)
    torch.testing.assert_close(learner.target.weights[0], before + 0.1)
    assert {"network.weights.0", "target.weights.0"} <= set(learner.state_dict())
    assert not any(parameter.requires_grad for parameter in learner.target.parameters())


def trained_for_calibration(world, tmp_path):
    scheme = find_scheme("success_discounted")
    torch.manual_seed(0)
    network = ValueEnsemble(PLACES + line_world.CONTEXT_SIZE, members=2, hidden=32)
    source = source_of(world, scheme)
    loss = value_loss(source, scheme)
    fit(network, loss, title="value", steps=200, learning_rate=1e-2, checkpoint=tmp_path / "c", seed=0)
    return source, network


def test_heads_are_calibrated_on_what_they_left_out(world, tmp_path):
    source, network = trained_for_calibration(world, tmp_path)
    with torch.no_grad():
        for parameter in (network.weights[-1], network.biases[-1]):
            parameter.mul_(3.0)  # too sure of itself
        network.biases[-1].add_(1.0)
    calibration = calibrate(source, network, "platt", seed=0)
    assert calibration.error is not None
    before, after = calibration.error
    assert before > 0.08 and after < 0.03
    logit, _, episode = _left_out(source, network, 0, 1)
    heads = np.arange(len(logit)) // (len(logit) // 2)
    assert all(not source.sample.mine[head][episode[heads == head]].any() for head in (0, 1))


def test_too_few_episodes_are_not_calibrated_on(tmp_path, caplog):
    few = line_world.walks(2)
    network = ValueEnsemble(PLACES + line_world.CONTEXT_SIZE, members=2, hidden=8)
    source = source_of(few, find_scheme("success_discounted"))
    assert calibrate(source, network, "platt", seed=0) is None
    assert "not calibrated" in caplog.text
