"""OpenVLA and OpenVLA-OFT: the prompt is read once, samples come with log-probabilities, nothing changes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed; make test-families")

import torch
from tiny_openvla import (
    STATISTICS,
    DiffusionHead,
    RegressionHead,
    TinyOpenVLA,
    TinyOpenVLAOFT,
    inputs,
)
from transformers import PreTrainedModel

import forethought
from forethought.interfaces import ActionSpec, ForethoughtError


@pytest.fixture(scope="module")
def vla() -> TinyOpenVLA:
    return TinyOpenVLA()


@pytest.fixture(scope="module")
def oft() -> TinyOpenVLAOFT:
    return TinyOpenVLAOFT()


def act(policy, scene, seed=0, **kwargs):
    with forethought.seeing(scene, "pick up the milk"):
        return policy.predict_action(**inputs(seed), do_sample=False, **kwargs)


def samples(wrapped):
    return wrapped.forethought.controller.planner.samples[-1]


class TestOpenVLA:
    def test_it_stays_a_model_of_its_class_with_its_weights(self, vla, wrap):
        wrapped = wrap(vla)
        assert isinstance(wrapped, TinyOpenVLA) and isinstance(wrapped, PreTrainedModel)
        assert forethought.unwrap(wrapped) is vla
        ours, theirs = wrapped.state_dict(), vla.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(ours[name] is theirs[name] or torch.equal(ours[name], theirs[name]) for name in ours)
        wrapped.load_state_dict(theirs)
        assert wrapped.get_action_dim("libero_object") == 7
        assert wrapped.config is vla.config and wrapped.device == vla.device

    def test_a_kept_action_is_the_originals_to_the_bit(self, vla, wrap, scene):
        wrapped = wrap(vla)
        for seed in range(5):
            alone = vla.predict_action(**inputs(seed), unnorm_key="libero_object", do_sample=False)
            ours = act(wrapped, scene, seed, unnorm_key="libero_object")
            assert ours.dtype == alone.dtype and np.array_equal(ours, alone)
        assert not wrapped.forethought.counters

    def test_random_decoding_is_the_originals_too(self, vla, wrap, scene):
        wrapped = wrap(vla)

        def decode(policy):
            torch.manual_seed(3)
            with forethought.seeing(scene, "pick up the milk"):
                return [policy.predict_action(**inputs(seed), do_sample=True) for seed in range(3)]

        assert np.array_equal(decode(wrapped), decode(vla))

    def test_the_prompt_is_read_once_for_all_samples(self, vla, wrap, scene):
        wrapped = wrap(vla)
        before = vla.passes
        act(wrapped, scene)
        assert vla.passes - before == 7 + 6  # the call's own, and a batch for each further word
        assert samples(wrapped).chunks.shape == (1, 6, 8, 7)

    def test_the_log_probabilities_are_those_of_a_forward_pass(self, wrap, scene):
        everything = {"action": {**STATISTICS["libero_object"]["action"], "mask": [True] * 7}}
        vla = TinyOpenVLA(statistics={"libero_object": everything})
        wrapped = wrap(vla)
        act(wrapped, scene)
        drawn = samples(wrapped)
        for sample in range(6):
            action = drawn.chunks[0, sample, 0].astype(np.float64)
            action[6] = (1 - action[6]) / 2  # back to 1 open, 0 closed
            low, high = (np.array(everything["action"][name]) for name in ("q01", "q99"))
            normalised = 2 * (action - low) / (high - low) - 1
            bins = np.abs(normalised[:, None] - vla.bin_centers).argmin(1)
            tokens = torch.from_numpy(vla.vocab_size - 1 - bins)[None]
            prompt = torch.cat([inputs()["input_ids"], torch.tensor([[29871]])], dim=1)
            words = torch.cat(
                [
                    vla.with_image(prompt, inputs()["pixel_values"]),
                    vla.language_model.get_input_embeddings()(tokens),
                ],
                dim=1,
            )
            logits = vla.language_model(inputs_embeds=words).logits[
                0, -8:-1, vla.vocab_size - 256 : vla.vocab_size
            ]
            probability = logits.double().softmax(-1).detach().numpy()[:, ::-1]
            expected = sum(
                np.log(row[index] + (row[255] if index == 254 else 0.0))
                for row, index in zip(probability, bins, strict=True)
            )
            assert drawn.log_probability[0, sample] == pytest.approx(expected, abs=1e-3)

    def test_samples_differ_and_follow_the_distribution(self, vla, wrap, scene):
        wrapped = wrap(vla, samples=400)
        act(wrapped, scene)
        first = samples(wrapped).chunks[0, 1:, 0, 0]
        prompt = torch.cat([inputs()["input_ids"], torch.tensor([[29871]])], dim=1)
        words = vla.with_image(prompt, inputs()["pixel_values"])
        logits = vla.language_model(inputs_embeds=words).logits[0, -1, 32000 - 256 : 32000]
        probability = logits.double().softmax(-1).detach().numpy()[::-1]
        values = 0.9 * np.append(vla.bin_centers, vla.bin_centers[-1])
        mean = (probability * values).sum()
        deviation = np.sqrt((probability * (values - mean) ** 2).sum())
        assert len(np.unique(first)) > 5
        assert abs(first.mean() - mean) < 4 * deviation / np.sqrt(len(first))

    def test_the_same_seed_draws_the_same_and_more_samples_begin_alike(self, vla, wrap, scene):
        few, many = wrap(vla, samples=4, seed=5), wrap(vla, samples=9, seed=5)
        act(few, scene)
        act(many, scene)
        assert np.allclose(samples(few).chunks, samples(many).chunks[:, :4])

    def test_the_gripper_is_converted_to_the_environment_and_back(self, vla, wrap, scene):
        for choose in range(1, 6):
            wrapped = wrap(vla, choose)
            action = act(wrapped, scene)
            planned = samples(wrapped).chunks[0, choose, 0]
            executed = wrapped.forethought.last.chunk[0, 0]
            assert executed[6] in (-1.0, 1.0)
            assert action[6] == (1.0 if executed[6] == -1.0 else 0.0)  # LIBERO: -1 is open
            assert np.allclose(action[:6], planned[:6], atol=1e-6)

    def test_a_planned_chunk_is_given_out_action_by_action(self, vla, wrap, scene):
        wrapped = wrap(vla, "rising")
        assert np.allclose([act(wrapped, scene)[0] for _ in range(9)], [*(0.1 * np.arange(1, 9)), 0.1])

    def test_which_end_of_the_gripper_is_open_must_be_known(self, scene, wrap):
        strange = TinyOpenVLA(statistics={"my_robot": STATISTICS["libero_object"]})
        with pytest.raises(ForethoughtError, match="gripper_open"):
            act(wrap(strange), scene)
        wrapped = wrap(strange, 1, gripper_open=1.0)
        action = act(wrapped, scene)
        assert action[6] == (1.0 if wrapped.forethought.last.chunk[0, 0, 6] == 1.0 else 0.0)
        with pytest.raises(ForethoughtError, match="one of the bounds"):
            act(wrap(strange, gripper_open=0.5), scene)
        unit = ActionSpec([*[-1.0] * 6, 0.0], np.ones(7), (0, 1, 2), (3, 4, 5), (6,))
        assert act(wrap(strange, 1, action_spec=unit), scene)[6] in (0.0, 1.0)

    def test_without_an_observation_it_says_how_to_give_one(self, vla, wrap):
        with pytest.raises(ForethoughtError, match=r"forethought\.seeing.*forethought\.watching"):
            wrap(vla).predict_action(**inputs(), do_sample=False)

    def test_a_function_that_calls_it_may_be_watched_instead(self, vla, wrap, scene):
        def get_vla_action(vla, processor, base_vla_name, obs, task_label, unnorm_key, center_crop=False):
            obs["state"] = obs["state"] * np.nan  # as a script that normalises in place
            return vla.predict_action(**inputs(), unnorm_key=unnorm_key, do_sample=False)

        wrapped = wrap(vla)
        watched = forethought.watching(get_vla_action)
        watched(wrapped, object(), "openvla-7b", scene, "pick up the milk", "libero_object")
        seen = wrapped.forethought.controller.planner.observations[-1]
        assert seen.instruction == ("pick up the milk",)
        assert np.isfinite(seen.proprioception).all()
        assert seen.images["full_image"].shape == (1, 6, 6, 3)

    def test_a_model_that_decodes_without_a_cache_is_planned_around(self, vla, wrap, scene):
        wrapped = wrap(vla)
        alone = vla.predict_action(**inputs(), do_sample=False)
        with forethought.seeing(scene, "pick up the milk"):
            ours = wrapped.predict_action(**inputs(), do_sample=False, use_cache=False)
        assert samples(wrapped).chunks.shape[1] == 1
        assert wrapped.forethought.counters["samples"] == 1
        assert ours.shape == alone.shape


class TestOFT:
    def test_words_are_drawn_from_the_call_itself(self, oft, wrap, scene):
        wrapped, before = wrap(oft), oft.passes
        chunk, hidden = act(wrapped, scene)
        assert oft.passes - before == 1
        assert chunk.shape == (8, 7) and hidden.shape[1] == 56
        assert samples(wrapped).chunks.shape == (1, 6, 8, 7)
        likely = samples(wrapped).log_probability
        assert np.isfinite(likely).all() and likely[0, 0] == likely.max()  # greedy is the likeliest
        assert len(np.unique(likely)) == 6

    def test_the_log_probabilities_are_those_of_the_positions_before(self, oft, wrap, scene):
        wrapped = wrap(oft)
        with_hook = []
        handle = oft.language_model.register_forward_hook(lambda *given: with_hook.append(given[-1].logits))
        act(wrapped, scene)
        handle.remove()
        start = inputs()["input_ids"].shape[1] + 4  # the empty token, four patches, counted from zero
        logits = with_hook[0][0, start : start + 56, 32000 - 256 : 32000]
        best = logits.double().log_softmax(-1).max(-1).values.sum()
        assert samples(wrapped).log_probability[0, 0] == pytest.approx(best.item(), abs=1e-3)

    @pytest.mark.parametrize("head", [None, RegressionHead(), DiffusionHead()])
    def test_a_kept_chunk_is_the_originals_to_the_bit(self, oft, wrap, scene, head):
        wrapped = wrap(oft)

        def run(policy):
            torch.manual_seed(1)
            return [
                act(policy, scene, seed, action_head=head, noisy_action_projector=object())[0]
                for seed in range(3)
            ]

        assert np.array_equal(run(wrapped), run(oft))
        assert not wrapped.forethought.counters

    def test_a_deterministic_head_gives_one_sample_and_a_diffusing_one_several(self, oft, wrap, scene):
        wrapped = wrap(oft)
        act(wrapped, scene, action_head=RegressionHead())
        assert samples(wrapped).chunks.shape[1] == 1
        act(wrapped, scene, action_head=DiffusionHead(), noisy_action_projector=object())
        chunks = samples(wrapped).chunks[0]
        assert len(np.unique(chunks[:, 0, 0])) == 6

    def test_a_planned_chunk_comes_back_in_its_own_format(self, oft, wrap, scene):
        wrapped = wrap(oft, "rising")
        chunk, hidden = act(wrapped, scene, action_head=RegressionHead())
        assert np.allclose(chunk[:, 0], 0.1 * np.arange(1, 9))
        assert set(np.unique(chunk[:, 6])) <= {0.0, 1.0}
        assert hidden.shape[1] == 56

    def test_it_is_found_by_what_its_method_takes(self, oft, vla):
        from forethought.wrappers.policies import openvla, openvla_oft

        assert openvla_oft.matches(oft) and not openvla_oft.matches(vla)
        assert openvla.matches(vla) and not openvla.matches(TinyOpenVLA)
