"""Behaviour cloning of the reference policy: from few demonstrations, or filtered from rollouts
(`forethought train policy`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...text import text_features
from ...weights import shrink
from ...world_models.encoder import PROPRIOCEPTION_FEATURES, proprioception_features, random_shift
from ...wrappers.policies.reference import FlowPolicyNetwork, ReferencePolicy, load
from .dataset import EpisodeSet, load_episodes
from .loop import fit, mixed_precision
from .origins import require_same


def train(
    *,
    demonstrations: Sequence[str],
    out: str,
    file: str = "policy.safetensors",
    cameras: Sequence[str] = ("eye_in_hand_rgb",),
    image_size: int = 64,
    per_task: int | None = None,
    horizon: int = 8,
    features: int = 128,
    steps: int = 800,
    batch: int = 192,
    draws: int = 4,
    shift: int = 1,
    learning_rate: float = 1e-3,
    eight_bits: bool = False,
    seed: int = 0,
    policy_from: str | None = None,
) -> Path:
    """Trains on the successful episodes below the folders and writes ``out/file``.

    Args:
        demonstrations: Folders of episodes; failed ones are left out (filtered behaviour cloning).
        out: Folder to write into.
        file: Name of the weights file.
        cameras: Cameras that the policy sees.
        image_size: Side of the images that it sees, pixels.
        per_task: At most so many demonstrations of each task.
        horizon: Chunk length H, control steps.
        features: Size of the learned visual features.
        steps: Gradient steps.
        batch: Frames a step.
        draws: Noises and flow times drawn for each frame; they share its encoding.
        shift: Random image shift, pixels.
        learning_rate: Peak learning rate.
        eight_bits: Whether the file holds its matrices in 8 bits in place of 16, see ``weights.shrink``.
        seed: Of initialisation and batches.
        policy_from: Weights file of a reference policy, or of a shipped folder as ``folder/file``, with which
            training starts and whose scales it keeps; None: from scratch.

    Returns:
        The path of the weights.

    Raises:
        ForethoughtError: ``policy_from`` is missing, or was trained with other cameras or shapes.
    """
    from ..benchmarks.libero import ACTION_SPEC

    target = Path(out) / file
    start = None
    if policy_from is not None:
        start = load(Path(policy_from).parent, Path(policy_from).name)
        asked = {"cameras": list(cameras), "image_size": image_size, "features": features, "horizon": horizon}
        require_same("policy_from", str(policy_from), start.network.shape, asked)
    data = load_episodes(demonstrations, cameras, successes_only=True, per_task=per_task)
    torch.manual_seed(seed)
    network = FlowPolicyNetwork(tuple(cameras), image_size, features, horizon, data.actions.shape[1])
    usable = data.frame_state[data.step[data.frame_state] < data.length[data.episode[data.frame_state]]]
    frames = np.flatnonzero(np.isin(data.frame_state, usable))
    chunks = torch.from_numpy(data.chunks(data.frame_state[frames], horizon))
    if start is None:
        _standardise(network, data, chunks)
    else:
        network.load_state_dict(start.network.state_dict())
    words = text_features(data.instructions)
    body = torch.from_numpy(data.proprioception)

    def loss(module: nn.Module, generator: torch.Generator) -> torch.Tensor:
        assert isinstance(module, FlowPolicyNetwork)
        pick = torch.randint(len(frames), (batch,), generator=generator)
        rows = frames[pick.numpy()]
        state = data.frame_state[rows]
        images = {
            name: random_shift(torch.from_numpy(image[rows]), generator, shift)
            for name, image in data.images.items()
        }
        with mixed_precision():
            condition = module.encoder(images, body[state], words[data.instruction[data.episode[state]]])
        return module.loss(condition.float().repeat(draws, 1), chunks[pick].repeat(draws, 1, 1), generator)

    checkpoint = target.with_suffix(".checkpoint")
    final = fit(
        network,
        loss,
        title="policy",
        steps=steps,
        learning_rate=learning_rate,
        checkpoint=checkpoint,
        seed=seed,
    )
    lineage = {"data": data.summary(), "steps": steps, "batch": batch, "seed": seed, "loss": round(final, 5)}
    lineage |= {"per_task": per_task, "shift": shift, "learning_rate": learning_rate}
    if start is not None:
        lineage |= {"policy_from": start.lineage}
    ReferencePolicy(network, ACTION_SPEC, lineage=lineage).save(target)
    if eight_bits:
        shrink(target)
    return target


def _standardise(network: FlowPolicyNetwork, data: EpisodeSet, chunks: torch.Tensor) -> None:
    flat = chunks.flatten(0, 1)
    network.action_mean.copy_(flat.mean(0))
    network.action_std.copy_(flat.std(0).clamp_min(1e-2))
    body = proprioception_features(torch.from_numpy(data.proprioception))
    network.encoder.mean[:PROPRIOCEPTION_FEATURES] = body.mean(0)
    network.encoder.std[:PROPRIOCEPTION_FEATURES] = body.std(0).clamp_min(5e-3)
