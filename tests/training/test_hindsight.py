"""Ways to the next grasp and to the end of the task, told by episodes that succeeded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.experiments.training.dataset import EpisodeSet
from forethought.experiments.training.hindsight import HINDSIGHT_FEATURES, hindsight
from forethought.experiments.training.layout import Layout
from forethought.experiments.training.models import train
from forethought.experiments.training.poses import physical_states, standardise_poses
from forethought.experiments.training.self_supervised import (
    JointModel,
    joint_loss,
    place_drift,
    standardise_ways,
)
from forethought.experiments.training.transitions import TransitionSampler, encode_episodes
from forethought.interfaces import ForethoughtError
from forethought.world_models.encoder import CONTEXT_SIZE, ObservationEncoder

LAYOUT = Layout.choose(True, False, 9)
WAYS, HELD = LAYOUT.ways, LAYOUT.held
OPEN, CLOSE = -1.0, 1.0
EMPTY, HELD_WIDTH, WIDE = 0.001, 0.03, 0.08


def played(*episodes: tuple[bool, list[tuple[float, float]]]) -> EpisodeSet:
    """Episodes of (success, [(command, width after it), ...]) whose gripper advances by 1 cm a step."""
    bodies, actions, episode, step, length, success = [], [], [], [], [], []
    for index, (won, commands) in enumerate(episodes):
        widths = [WIDE, *(width for _, width in commands)]
        for place, width in enumerate(widths):
            bodies.append([0.01 * place, 0, 0.1 * index, 0, 0, 0, width / 2, -width / 2])
            episode.append(index)
            step.append(place)
        told = [command for command, _ in commands]
        actions += [[0, 0, 0, 0, 0, 0, command] for command in [*told, told[-1]]]
        length.append(len(commands))
        success.append(won)
    count = len(length)
    return EpisodeSet(
        images={},
        frame_state=np.arange(0),
        proprioception=np.array(bodies, np.float32),
        privileged=None,
        actions=np.array(actions, np.float32),
        episode=np.array(episode),
        step=np.array(step),
        length=np.array(length),
        success=np.array(success),
        instruction=np.zeros(count, np.int64),
        instructions=("take it",),
        init_state=np.zeros(count, np.int64),
    )


def told(data: EpisodeSet):
    return hindsight(data, 0.0028, 6)


REACH = [(OPEN, WIDE)] * 5
GRASP = [(CLOSE, 0.05), (CLOSE, 0.04)] + [(CLOSE, HELD_WIDTH)] * 12


def test_way_to_the_grasp_ends_where_the_fingers_were_told_to_close():
    data = played((True, REACH + GRASP))
    found = told(data)
    np.testing.assert_allclose(found.way[:6, 0], 0.01 * np.arange(5, -1, -1), atol=1e-6)
    assert (found.way[6:20, :3] == 0).all()
    assert found.known.all()


def test_way_to_the_end_leads_to_the_last_state():
    data = played((True, REACH + GRASP))
    found = told(data)
    np.testing.assert_allclose(found.way[:, 3], 0.01 * (19 - np.arange(20)), atol=1e-6)


def test_a_failed_episode_tells_nothing_and_disturbs_no_other():
    alone = told(played((True, REACH + GRASP)))
    both = told(played((False, REACH + GRASP), (True, REACH + GRASP)))
    assert not both.known[:20].any()
    np.testing.assert_array_equal(both.way[20:], alone.way)
    np.testing.assert_array_equal(both.known[20:], alone.known)


def test_fingers_that_close_on_nothing_hold_nothing():
    found = told(played((True, REACH + [(CLOSE, EMPTY)] * 14)))
    assert not found.known[:, :3].any()
    assert found.known[:, 3:].all()


def test_a_hold_that_is_lost_at_once_is_none():
    slip = [(CLOSE, HELD_WIDTH)] * 8 + [(CLOSE, EMPTY)] * 10
    assert not told(played((True, REACH + slip))).known[:, :3].any()


def test_fingers_on_their_way_hold_nothing_yet():
    closing = [(CLOSE, width) for width in np.linspace(0.08, 0.01, 20)]
    assert not told(played((True, REACH + closing))).known[:, :3].any()


def test_after_a_drop_the_next_grasp_counts():
    again = REACH + GRASP + [(OPEN, WIDE)] * 4 + GRASP
    found = told(played((True, again)))
    dropped = 5 + 14 + 1  # first state in which the fingers were told to open
    assert found.known.all()
    np.testing.assert_allclose(found.way[dropped, 0], 0.01 * 3, atol=1e-6)
    assert (found.way[dropped + 4 :, :3] == 0).all()
    np.testing.assert_allclose(found.way[0, 0], 0.05, atol=1e-6)  # to the first grasp, not to the second
    assert (found.way[6:dropped, :3] == 0).all()


def test_after_the_last_hold_no_grasp_is_known():
    found = told(played((True, REACH + GRASP + [(OPEN, WIDE)] * 6)))
    assert not found.known[-5:, :3].any()
    assert found.known[:, 3:].all()


@pytest.mark.parametrize(("gap", "holds"), [(2, 1), (9, 2)])
def test_a_short_interruption_does_not_end_a_hold(gap, holds):
    commands = REACH + GRASP + [(CLOSE, EMPTY)] * gap + [(CLOSE, HELD_WIDTH)] * 12
    found = told(played((True, commands)))
    between = found.way[20 : 20 + gap, 0]
    assert found.known[: 20 + gap, :3].all()
    if holds == 1:
        assert (between == 0).all()
    else:
        assert (found.way[20 + gap + 2 :, :3] == 0).all()


def test_whether_something_is_held_is_known_in_every_episode_but_not_while_fingers_close():
    data = played((False, REACH + GRASP + [(OPEN, WIDE)] * 3), (False, REACH + [(CLOSE, EMPTY)] * 9))
    found = told(data)
    first, second = np.split(np.arange(len(data.step)), [len(REACH + GRASP) + 4])
    assert found.held[first].tolist() == [False] * 9 + [True] * 11 + [False] * 3
    assert found.sure[first].tolist() == [True] * 6 + [False] * 3 + [True] * 14
    assert not found.held[second].any()
    assert found.sure[second].tolist() == [True] * 6 + [False] * 3 + [True] * 6
    numbers, known = found.told(first)
    assert numbers.shape == known.shape == (len(first), HINDSIGHT_FEATURES)
    assert (numbers[:, 6] == found.held[first]).all() and (known[:, 6] == found.sure[first]).all()


def test_jumps_lead_to_what_is_known_afterwards_and_start_from_what_was_seen():
    data = played((True, REACH + GRASP), (False, REACH + GRASP))
    every = np.arange(len(data.step))
    picture = np.random.default_rng(0).integers(0, 255, (len(every), 16, 16, 3), dtype=np.uint8)
    data = replace(data, images={"wrist": picture}, frame_state=every)
    encoder = ObservationEncoder(["wrist"], image_size=16, features=9, places=True)
    afterwards = told(data)
    standardise_ways(encoder, data, LAYOUT, afterwards)
    encoder.std[WAYS] = 0.5
    encoded = encode_episodes(encoder, data, LAYOUT, afterwards)
    won = len(REACH + GRASP) + 1
    target, known = TransitionSampler(data, encoded, 4, 8, 1).target(every)
    assert known.all()
    np.testing.assert_allclose(target[:won, WAYS], afterwards.way[:won] / 0.5, atol=1e-6)
    assert (target[won:, WAYS] == encoded.frames[won:, WAYS]).all()
    sure = np.flatnonzero(afterwards.sure)
    assert (target[sure, HELD].numpy() == afterwards.held[sure]).all()
    rest = [*range(WAYS.start), *range(HELD + 1, target.shape[1])]
    assert (target[:, rest] == encoded.frames[:, rest]).all()
    start, state = TransitionSampler(data, encoded, 4, 8, 1).draw(torch.Generator().manual_seed(0))
    assert (start[0] == encoded.frames[state[0]]).all()


def test_poses_beside_what_hindsight_tells_are_targets_and_starts():
    data = played((True, REACH + GRASP), (False, REACH + GRASP))
    every = np.arange(len(data.step))
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 255, (len(every), 16, 16, 3), dtype=np.uint8)
    objects = generator.normal(size=(len(every), 18)).astype(np.float32)
    data = replace(data, images={"wrist": picture}, frame_state=every, privileged=objects)
    layout = Layout.choose(True, True, 27)
    assert layout.poses == slice(18, 36) and layout.free == slice(36, 38)
    encoder = ObservationEncoder(["wrist"], image_size=16, features=27, places=True)
    afterwards = told(data)
    standardise_ways(encoder, data, layout, afterwards)
    standardise_poses(encoder, data, layout.poses)
    encoded = encode_episodes(encoder, data, layout, afterwards)
    sample = TransitionSampler(data, encoded, 4, 256, 1)
    target, known = sample.target(every)
    assert known.all()
    expected = physical_states(data)[:, 11:]
    expected = (expected - expected.mean(0)) / expected.std(0)
    torch.testing.assert_close(target[:, layout.poses], expected)
    won = len(REACH + GRASP) + 1
    assert (target[won:, layout.ways] == encoded.frames[won:, layout.ways]).all()
    start, state = sample.draw(torch.Generator().manual_seed(0))
    assert (start[0, :128] == encoded.frames[state[0, :128]]).all()
    error = (start[0, 128:] - target[state[0, 128:]])[:, :38]
    assert 0.015 < float(error.std()) < 0.025


@pytest.mark.parametrize("with_poses", [False, True])
def test_the_loss_sees_poses_where_they_are_part_of_the_latent(with_poses):
    data = played((True, REACH + GRASP), (False, REACH + GRASP))
    every = np.arange(len(data.step))
    black = np.zeros((len(every), 16, 16, 3), np.uint8)
    objects = np.random.default_rng(0).normal(size=(len(every), 18)).astype(np.float32)
    afterwards = told(replace(data, images={"wrist": black}, frame_state=every))
    layout = Layout.choose(True, with_poses, 27)
    losses = []
    for privileged in (objects, objects[::-1].copy()):
        seen = replace(data, images={"wrist": black}, frame_state=every, privileged=privileged)
        torch.manual_seed(0)
        encoder = ObservationEncoder(["wrist"], image_size=16, features=27, places=True)
        if layout.poses is not None:
            standardise_poses(encoder, seen, layout.poses)
        loss = joint_loss(seen, encoder, layout, afterwards, horizon=4, batch=64, discount=0.9)
        with torch.no_grad():
            losses.append(float(loss(JointModel(encoder, 4, 7), torch.Generator().manual_seed(0))))
    assert (losses[0] != losses[1]) == with_poses


def test_a_layout_without_supervision_or_too_small_is_refused():
    with pytest.raises(ForethoughtError, match="nothing to say"):
        Layout.choose(False, False, 32)
    with pytest.raises(ForethoughtError, match="at least 25"):
        Layout.choose(True, True, 24)
    alone = Layout.choose(False, True, 32)
    assert alone.exact and alone.features == 18 and alone.hindsight == slice(11, 11)
    for layout in (alone, LAYOUT, Layout.choose(True, True, 32)):
        assert len(layout.column_weights()) == layout.size
        assert len(layout.key_weights()) == layout.size + CONTEXT_SIZE
        assert (layout.key_weights()[layout.first] == 3).all()


def test_a_shift_that_nothing_would_apply_is_refused(tmp_path):
    with pytest.raises(ForethoughtError, match="got shift=2"):
        train(rollouts=[], out=str(tmp_path), privileged_supervision=False, shift=2)


def test_places_stay_where_they_are_while_the_gripper_moves():
    torch.manual_seed(0)
    encoder = ObservationEncoder(["wrist"], image_size=16, features=9, places=True)
    encoder.std[WAYS] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    encoder.place_mean[:], encoder.place_std[:] = 0.3, 0.1
    visual, gripper = torch.randn(4, 9), torch.randn(4, 3)
    visual[:, 6] = torch.tensor([-30.0, 0.0, 30.0, -30.0])  # not in the hand, perhaps, in the hand
    learned = encoder._ways(visual, gripper)
    place = learned[:, :6] * encoder.std[WAYS] + gripper.repeat(1, 2)
    torch.testing.assert_close(place[:, 3:], 0.3 + 0.1 * visual[:, 3:6])
    torch.testing.assert_close(place[[0, 3], :3], 0.3 + 0.1 * visual[[0, 3], :3])
    torch.testing.assert_close(place[2, :3], gripper[2])
    torch.testing.assert_close(place[1, :3], 0.5 * (0.3 + 0.1 * visual[1, :3] + gripper[1]))
    torch.testing.assert_close(learned[:, 6], torch.tensor([0.0, 0.5, 1.0, 0.0]))
    torch.testing.assert_close(learned[:, 7:], visual[:, 7:])


def test_places_that_move_with_the_gripper_drift_and_those_that_stay_do_not():
    gripper, place, scale = (
        torch.randn(2, 5, 3),
        torch.randn(5, 6),
        torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0, 3.0]),
    )
    still = (place - gripper.repeat(1, 1, 2)) / scale
    torch.testing.assert_close(place_drift(still, gripper, scale), torch.zeros(5, 6), atol=1e-4, rtol=0)
    carried = torch.stack([still[0], still[0]])
    expected = (gripper[1] - gripper[0]).repeat(1, 2) / scale
    torch.testing.assert_close(place_drift(carried, gripper, scale), expected)


def test_an_empty_gripper_that_takes_places_along_is_wrong_even_where_nothing_is_told():
    losses = []
    for width in (EMPTY, HELD_WIDTH):
        data = played((False, [(CLOSE, width)] * 14))
        every = np.arange(len(data.step))
        black = np.zeros((len(every), 16, 16, 3), np.uint8)
        data = replace(data, images={"wrist": black}, frame_state=every)
        afterwards = told(data)
        assert not afterwards.known.any() and afterwards.held.any() == (width == HELD_WIDTH)
        torch.manual_seed(0)
        encoder = ObservationEncoder(["wrist"], image_size=16, features=9)
        encoder.std[WAYS] = 0.01
        model = JointModel(encoder, 1, 7)
        for parameter in model.parameters():  # ways that never change, whatever the gripper does
            parameter.data.zero_()
        encoder.head[-1].bias.data[6] = 0.5  # held or not: equally wrong
        loss = joint_loss(data, encoder, LAYOUT, afterwards, horizon=1, batch=512, discount=0.9)
        losses.append(float(loss(model, torch.Generator().manual_seed(0)).detach()))
    # One of the six numbers moves by 1 cm, which is one latent unit, in 10 of 13 pairs of frames.
    assert losses[0] - losses[1] == pytest.approx((1 - 0.025) / 6 * 10 / 13, abs=0.03)
