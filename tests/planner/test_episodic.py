"""What an episode has shown corrects what is imagined, near it and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planner_fakes import ARM, ArmWorld, FunctionWorld, NearTarget, observe, policy_samples

from forethought.interfaces import ForethoughtError, Observation, Prediction, RowPlanner, Score
from forethought.planner import EpisodicCorrection, Gate, TreeSearch, forethought
from forethought.planner.episodic import Case
from forethought.wrappers.controller import Controller

WIDTHS = {"state_width": 0.05, "chunk_width": 0.3}


def jammed(state, chunk):
    """What really comes of a chunk ``[H, A]``: the arm moves, but not along the first axis."""
    moved = chunk.astype(np.float64).mean(axis=0)
    moved[0] = 0
    return state + moved


def search(world=None, **options) -> TreeSearch:
    world = ArmWorld() if world is None else world
    options = {"simulations": 16} | options
    planner = forethought(world, NearTarget(), action_spec=ARM, **options)
    assert isinstance(planner, TreeSearch)
    return planner


def decide(planner, state, index=0, instruction=("task 0",)):
    state = np.atleast_2d(np.asarray(state, np.float32))
    samples = policy_samples(ARM, len(state), 4, 8, seed=index)
    names = instruction if len(instruction) == len(state) else tuple(f"task {i}" for i in range(len(state)))
    seeds = 10 * index + np.arange(len(state))
    return planner.plan(Observation({}, state, names), samples, seeds)


def surprise(planner, state=(0.0,) * 7):
    """One decision whose first axis turns out to be jammed, and the same decision again."""
    before = decide(planner, state)
    stuck = np.array(state, np.float64)  # nothing moved at all
    return before, decide(planner, stuck)


def test_nothing_is_corrected_before_something_was_seen():
    plain, corrected = search(), EpisodicCorrection(search(), **WIDTHS)
    one, other = decide(plain, [0.1] * 7), decide(corrected, [0.1] * 7)
    assert np.array_equal(one.chunk, other.chunk)
    assert np.array_equal(one.candidates.value, other.candidates.value)


def test_a_chunk_that_changed_nothing_is_not_expected_to_change_anything_again():
    before, after = surprise(EpisodicCorrection(search(), **WIDTHS))
    slot = int(before.slot[0])
    here = NearTarget().score(np.zeros((1, 7)), ["task 0"]).value[0]
    assert before.value[0] > here + 0.01
    assert after.candidates.value[0, slot] == pytest.approx(here, abs=1e-6)
    assert not np.array_equal(after.chunk[0], before.chunk[0])


def test_search_alone_repeats_itself_where_the_corrected_one_tries_something_else():
    chosen = {}
    for name, planner in (("alone", search()), ("corrected", EpisodicCorrection(search(), **WIDTHS))):
        chosen[name] = {int(decide(planner, np.zeros(7)).slot[0]) for _ in range(6)}
    assert len(chosen["alone"]) == 1
    assert len(chosen["corrected"]) >= 4


def test_far_from_what_was_seen_the_model_speaks_alone():
    corrected = EpisodicCorrection(search(), **WIDTHS)
    surprise(corrected)
    far = np.full(7, 2.0)
    np.testing.assert_allclose(
        decide(corrected, far).candidates.value, decide(search(), far).candidates.value, atol=1e-12
    )


def test_a_model_that_was_right_is_left_alone():
    corrected = EpisodicCorrection(search(), **WIDTHS)
    state = np.zeros((1, 7))
    for index in range(4):
        mine, plain = decide(corrected, state, index), decide(search(), state, index)
        np.testing.assert_allclose(mine.candidates.value, plain.candidates.value, atol=1e-5)
        state = state + mine.chunk.astype(np.float64).mean(axis=1)


def test_rows_learn_nothing_from_one_another():
    alone, both = (EpisodicCorrection(search(), **WIDTHS) for _ in range(2))
    states = np.zeros((2, 7), np.float32)
    moved = states.copy()
    for index in range(3):
        together = decide(both, states if index == 0 else moved, index)
        single = decide(alone, states[:1] if index == 0 else moved[:1], index)
        assert np.array_equal(together.candidates.value[0], single.candidates.value[0])
        moved[1] = jammed(moved[1], together.chunk[1])  # the first row is stuck


def test_named_rows_keep_their_cases_while_others_plan():
    corrected = EpisodicCorrection(search(), **WIDTHS)
    assert isinstance(corrected, RowPlanner)
    state = np.zeros((1, 7), np.float32)

    def plan(name):
        samples = policy_samples(ARM, 1, 4, 8)
        return corrected.plan_rows(observe(state), samples, np.array([0]), np.array([name]))

    first, _, again = plan(5), plan(3), plan(5)
    assert not np.array_equal(first.chunk, again.chunk)
    corrected.reset([5])
    assert np.array_equal(plan(5).chunk, first.chunk)
    assert not np.array_equal(plan(3).chunk, first.chunk)


@pytest.mark.parametrize("forget", ["reset", "instruction", "batch"])
def test_an_episode_that_begins_starts_without_cases(forget):
    corrected = EpisodicCorrection(search(), **WIDTHS)
    before, _ = surprise(corrected)
    if forget == "reset":
        corrected.reset()
    elif forget == "batch":
        decide(corrected, np.zeros((2, 7)))
    instruction = ("another task",) if forget == "instruction" else ("task 0",)
    assert np.array_equal(decide(corrected, np.zeros(7), 0, instruction).chunk, before.chunk)


@pytest.mark.parametrize("cut", [slice(0, 3), slice(0, 0)])
def test_a_chunk_that_was_cut_short_teaches_nothing(cut):
    corrected = EpisodicCorrection(search(), **WIDTHS)
    before = decide(corrected, np.zeros(7))
    corrected.executed(before.chunk[:, cut], [0])
    assert np.array_equal(decide(corrected, np.zeros(7)).chunk, before.chunk)


def test_a_chunk_that_was_executed_as_decided_teaches():
    corrected = EpisodicCorrection(search(), **WIDTHS)
    before = decide(corrected, np.zeros(7))
    corrected.executed(before.chunk, [0])
    assert not np.array_equal(decide(corrected, np.zeros(7)).chunk, before.chunk)


class Swarm:
    """The arm as an ensemble: torch latents ``[M, 3, 7]`` whose particles drift apart."""

    def encode(self, observation):
        state = torch.from_numpy(np.asarray(observation.proprioception, np.float32))
        return state[:, None].expand(-1, 3, -1).contiguous()

    def step(self, latent, chunks):
        moved = torch.from_numpy(chunks).mean(dim=1)[:, None] * torch.tensor([0.9, 1.0, 1.1])[:, None]
        zero = np.zeros(len(chunks), np.float32)
        return Prediction(latent + moved, zero, zero)


class MeanOfSwarm(NearTarget):
    def score(self, latent, instruction):
        values = [super(MeanOfSwarm, self).score(latent[:, i].numpy(), instruction).value for i in range(3)]
        return Score(np.mean(values, axis=0), np.std(values, axis=0))


def test_every_particle_is_corrected_by_its_own_error():
    planner = forethought(Swarm(), MeanOfSwarm(), action_spec=ARM, simulations=16)
    assert isinstance(planner, TreeSearch)
    corrected = EpisodicCorrection(planner, **WIDTHS)
    before, after = surprise(corrected)
    slot = int(before.slot[0])
    here = NearTarget().score(np.zeros((1, 7)), ["task 0"]).value[0]
    # The mean less the spread: what all particles agree on.
    assert after.candidates.value[0, slot] == pytest.approx(here, abs=1e-5)


def test_weights_say_which_numbers_of_a_state_count():
    blind = np.array([0, 1, 1, 1, 1, 1, 1.0])
    corrected = EpisodicCorrection(search(), weights=blind, **WIDTHS)
    surprise(corrected)
    aside = np.array([3.0, 0, 0, 0, 0, 0, 0])
    assert not np.allclose(
        decide(corrected, aside).candidates.value, decide(search(), aside).candidates.value, atol=1e-4
    )


def test_latents_that_are_no_numbers_are_left_alone():
    class Opaque(ArmWorld):
        def encode(self, observation):
            states = np.empty(len(observation.proprioception), object)
            states[:] = [row.astype(np.float64) for row in observation.proprioception]
            return states

        def step(self, latent, chunks):
            states = np.empty(len(chunks), object)
            states[:] = [s + c.astype(np.float64).mean(axis=0) for s, c in zip(latent, chunks)]
            zero = np.zeros(len(chunks))
            return Prediction(states, zero, zero)

    class Reward(NearTarget):
        def score(self, latent, instruction):
            return super().score(np.stack(list(latent)), instruction)

    planner = forethought(Opaque(), Reward(), action_spec=ARM, simulations=16)
    assert isinstance(planner, TreeSearch)
    before, after = surprise(EpisodicCorrection(planner, **WIDTHS))
    assert np.array_equal(before.chunk, after.chunk)


def test_a_state_that_is_not_finite_is_no_case():
    corrected = EpisodicCorrection(search(), **WIDTHS)
    before = decide(corrected, np.zeros(7))
    assert decide(corrected, np.full(7, np.nan)).fallback[0]
    assert np.array_equal(decide(corrected, np.zeros(7)).chunk, before.chunk)


def test_a_broken_row_does_not_learn_from_the_state_that_stands_in_for_it():
    corrected = EpisodicCorrection(search(), **WIDTHS)
    decide(corrected, np.zeros((2, 7)))
    decide(corrected, np.stack([np.full(7, np.nan), np.zeros(7)]))
    decide(corrected, np.zeros((2, 7)))
    assert len(corrected._cases.get(0, ())) == 0
    assert len(corrected._cases[1]) == 2


def test_a_surprise_seen_often_counts_no_more_than_once():
    corrected = EpisodicCorrection(search(), **WIDTHS)
    case = Case(np.zeros(7, np.float32), np.zeros(56, np.float32), np.ones(7, np.float32))
    change = corrected._change([case] * 5, np.zeros((1, 7), np.float32), np.zeros((1, 8, 7), np.float32))
    np.testing.assert_allclose(change, np.ones((1, 7)))


def test_the_kernel_is_gaussian_in_root_mean_square_differences():
    weights = np.array([2.0, 1, 1, 0, 0, 0, 0])
    corrected = EpisodicCorrection(search(), state_width=0.5, chunk_width=0.25, weights=weights)
    state, chunk = np.zeros((1, 7), np.float32), np.zeros((1, 8, 7), np.float32)
    case = Case(np.full(7, 0.3, np.float32), np.full(56, 0.1, np.float32), np.ones(7, np.float32))
    expected = np.exp(-0.5 * ((0.3 / 0.5) ** 2 + (0.1 / 0.25) ** 2))
    np.testing.assert_allclose(corrected._change([case], state, chunk), np.full((1, 7), expected), rtol=1e-5)


def test_a_decision_that_an_episode_overtook_is_forgotten():
    class Late(ArmWorld):
        def step(self, latent, chunks):
            corrected.reset()  # the next episode begins while this one still plans
            return super().step(latent, chunks)

    corrected = EpisodicCorrection(search(Late()), **WIDTHS)
    decide(corrected, np.zeros(7))
    assert not corrected._pending


def test_old_cases_make_room_for_new_ones():
    corrected = EpisodicCorrection(search(), most=2, **WIDTHS)
    for index in range(5):
        decide(corrected, np.zeros(7), index)
    assert len(corrected._cases[0]) == 2


class Clipping:
    """A guard that lets no chunk pass as it was decided."""

    def check(self, chunk):
        from forethought.wrappers.safety import Guard

        return Guard(ARM).check(0.5 * chunk)


class Samples:
    action_spec, horizon = ARM, 8

    def propose(self, observation, n, seeds):
        return policy_samples(ARM, observation.batch, n, 8)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("guard", [None, Clipping()])
def test_the_controller_says_what_was_executed(guard, gated):
    planner = corrected = EpisodicCorrection(search(), **WIDTHS)
    if gated:
        planner = Gate(corrected, ARM, lambda observation: np.zeros(observation.batch), spread=0.0)
    controller = Controller(Samples(), planner, guard=guard)
    for _ in range(3):
        controller.decide(observe(np.zeros((1, 7))), np.array([0]))
    assert not controller.counters
    assert len(corrected._cases.get(0, ())) == (2 if guard is None else 0)


@pytest.mark.parametrize(
    "wrong", [{"state_width": 0.0}, {"chunk_width": -1.0}, {"most": 0}, {"state_width": np.nan}]
)
def test_widths_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ForethoughtError, match="must be above 0"):
        EpisodicCorrection(search(), **wrong)


def test_weights_of_another_latent_are_refused_in_words():
    corrected = EpisodicCorrection(search(), weights=np.ones(3))
    decide(corrected, np.zeros(7))
    with pytest.raises(ForethoughtError, match="3 numbers"):
        decide(corrected, np.zeros(7))


def test_preset_builds_it_and_refuses_it_beside_reuse():
    planner = forethought(ArmWorld(), NearTarget(), action_spec=ARM, episodic=True, episodic_chunk=0.5)
    assert isinstance(planner, EpisodicCorrection)
    assert planner.chunk_width == 0.5
    with pytest.raises(ForethoughtError, match="Choose one"):
        forethought(FunctionWorld(jammed), NearTarget(), action_spec=ARM, episodic=True, reuse=True, depth=2)
