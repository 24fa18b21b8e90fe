"""Training of a video world model, with a value and a memory on its latents (`forethought train video`).

Stages, each skipped when its result is already in the folder: frame codec, flow over the frames of a chunk,
value. Nothing but pictures, proprioception, actions and the outcome of episodes supervises any of them. A
tenth of the episodes is kept out of training for the report (see ``video_report``).
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...interfaces import ForethoughtError
from ...reward.schemes import find_scheme
from ...reward.value import FILE as VALUE_FILE
from ...reward.value import ValueEnsemble, ValueModel
from ...text import text_features
from ...weights import shrink
from ...world_models.encoder import CONTEXT_SIZE, PROPRIOCEPTION_FEATURES, instruction_context
from ...world_models.encoder import proprioception_features as body_features
from ...world_models.flow import FrameTransformer
from ...world_models.frames import FrameCodec
from ...world_models.retrieval import FILE as MEMORY_FILE
from ...world_models.video import FILE as VIDEO_FILE
from ...world_models.video import VideoWorldModel
from ..evaluation.plan import parse_indices
from .dataset import load_episodes
from .dreams import Dreams, dreamed_loss
from .memory import build_memory
from .origins import start_video
from .stages import Stages
from .transitions import Encoded
from .video_losses import Windows, codec_loss, encode_pictures, flow_loss, imagine, mosaics, scale_changes
from .video_report import Imagined, report

_PICTURE = slice(PROPRIOCEPTION_FEATURES, -CONTEXT_SIZE)
"""The picture's part of a latent."""


def train(
    *,
    rollouts: Sequence[str],
    out: str,
    cameras: Sequence[str] = ("eye_in_hand_rgb",),
    image_size: int = 64,
    horizon: int = 8,
    frames: int = 1,
    channels: int = 4,
    codec_width: int = 32,
    halvings: int = 3,
    width: int = 192,
    blocks: int = 4,
    heads: int = 4,
    patch: int = 1,
    euler_steps: int = 2,
    discount: float = 0.99,
    scheme: str | Mapping[str, Any] = "success_discounted",
    codec_steps: int = 4000,
    codec_batch: int = 64,
    flow_steps: int = 20000,
    flow_batch: int = 128,
    value_steps: int = 3000,
    batch: int = 512,
    members: int = 5,
    memory_entries: int = 24000,
    imagined: int = 8192,
    init_states: str | Sequence[int] = "all",
    model_from: str | None = None,
    eight_bits: bool = False,
    device: str = "cpu",
    seed: int = 0,
) -> Path:
    """Trains codec, flow, value and memory from the folders and writes a models folder.

    Args:
        rollouts: Folders of the policy's own episodes, failures included.
        out: Folder to write into; a killed run goes on from what is there.
        cameras: Cameras that are imagined.
        image_size: Side of their pictures, pixels.
        horizon: Chunk length H, control steps.
        frames: Frames of a chunk; the episodes must keep a picture every H / frames steps.
        channels: Channels of a latent picture.
        codec_width: Feature maps of the codec.
        halvings: How often the codec halves the side of a picture.
        width: Size of a token of the transformer.
        blocks: Its depth.
        heads: Its attention heads.
        patch: Side of a token's patch, cells of the latent picture.
        euler_steps: Steps of the flow at test time.
        discount: γ of the value, per control step.
        scheme: What the value learns, a name of ``reward/schemes`` (see ``find_scheme``).
        codec_steps: Gradient steps of the codec.
        codec_batch: Pictures a step.
        flow_steps: Gradient steps of the flow; 0 keeps that of ``model_from`` as it is.
        flow_batch: Chunks a step.
        value_steps: Gradient steps of the value.
        batch: Latents a step of the value.
        members: Networks of the value.
        memory_entries: At most so many chunks in the memory; 0: none is made.
        imagined: Imagined latents that the value learns from beside the real ones.
        init_states: Only episodes that started there are used, such as ``0-21``.
        model_from: Models folder of a video model whose flow this one starts from and whose codec it keeps,
            so that their latents mean the same; None: from scratch.
        eight_bits: Stores the weights' large matrices in 8 bits (see ``weights.shrink``).
        device: Where it trains: ``cpu`` or ``cuda``.
        seed: Of initialisation and batches.

    Returns:
        The models folder.
    """
    from ..benchmarks.libero import ACTION_SPEC

    labels = find_scheme(scheme)
    if not flow_steps and model_from is None:
        raise ForethoughtError("flow_steps=0 keeps the flow of another model: name its folder in model_from.")
    folder = Path(out)
    kept = None if init_states == "all" else parse_indices(init_states, "init_states", sys.maxsize)
    data = load_episodes(rollouts, cameras, executed=True, init_states=kept)
    windows = Windows(data, horizon, frames)
    torch.manual_seed(seed)
    codec = FrameCodec(cameras, image_size, channels, codec_width, halvings)
    flow = FrameTransformer(codec.grid, horizon, data.actions.shape[1], frames, width, blocks, heads, patch)
    stage = Stages(folder / "stages", seed, device)
    given = None if model_from is None else start_video(codec, flow, model_from)
    if given is None:
        stage.run("codec", codec, codec_loss(data, codec_batch, device), codec_steps)
        some = windows.start[windows.learn[:: max(1, len(windows.learn) // 512)]]
        codec.standardise(mosaics(codec, data, some, device))
    codec.to(device).eval()
    pictures = encode_pictures(codec, data, device)
    body = body_features(torch.from_numpy(data.proprioception))
    body_mean, body_std = given or (body.mean(0), body.std(0).clamp_min(5e-3))
    own = ((body - body_mean) / body_std)[data.frame_state]
    if given is None:
        scale_changes(flow, windows, pictures, own)
    context = instruction_context(text_features(data.instructions))[data.instruction[windows.episode]]
    flow.to(device)
    if flow_steps:
        loss = flow_loss(data, windows, pictures, own, context, flow_batch, device)
        stage.run("flow", flow, loss, flow_steps)
    model = VideoWorldModel(codec, flow, (body_mean, body_std), steps=euler_steps, device=device)
    vectors = torch.cat([own, pictures.float().flatten(1), context], dim=-1)
    weights = np.ones(
        vectors.shape[1], np.float32
    )  # a picture's many numbers count as much as the few others
    weights[_PICTURE] = (PROPRIOCEPTION_FEATURES / weights[_PICTURE].size) ** 0.5
    learned = np.isin(windows.episode, windows.episode[windows.start[windows.learn]])
    value = ValueEnsemble(vectors.shape[1], members)
    source = Dreams(
        data,
        vectors,
        np.flatnonzero(learned),
        windows.start[np.random.default_rng(0).permutation(windows.learn)[:imagined]],
        functools.partial(imagine, model),
        (vectors.numpy() * weights)[:, :-CONTEXT_SIZE],
        horizon=horizon,
        discount=discount,
        batch=batch,
        members=members,
        increments=(*ACTION_SPEC.position, *ACTION_SPEC.rotation),
        uses_failures=labels.uses_failures,
    )
    learner, loss = labels.learner(value), dreamed_loss(source, labels)
    stage.run(f"value_{labels.name}", learner, loss, value_steps, weight_decay=1e-2, device="cpu")
    lineage = {"data": data.summary(), "seed": seed, "discount": discount}
    steps = {"codec": codec_steps} if given is None else {}
    lineage |= {"steps": steps | {"flow": flow_steps, "value": value_steps}}
    lineage |= {} if model_from is None else {"model_from": Path(model_from).name}
    shown = report(folder, model, Imagined.of(data, windows.start[windows.judge], horizon))
    model.cost = replace(model.cost, milliseconds=shown["milliseconds_a_candidate"], device=shown["device"])
    model.save(folder, lineage)
    ValueModel(value, labels.name).save(folder / VALUE_FILE)
    files = [VIDEO_FILE, VALUE_FILE]
    if memory_entries:
        build_memory(data, Encoded(vectors, None, keys=weights), horizon, memory_entries, seed).save(folder)
        files.append(MEMORY_FILE)
    for name in files if eight_bits else ():
        shrink(folder / name)
    description = {
        "world_model": {"kind": "video", "steps": euler_steps},
        "reward": {"kind": "value"},
        **({"memory": {"kind": "retrieval"}} if memory_entries else {}),
        "cameras": list(cameras),
        "horizon": horizon,
        "action": ACTION_SPEC.to_dict(),
        "privileged_supervision": False,
        "lineage": lineage,
    }
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")
    return folder
