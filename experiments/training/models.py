"""Training of everything that search needs, from recorded rollouts (`forethought train models`).

Stages, each skipped when its result is already in the folder: encoder, chunk-jump dynamics, one value per
label scheme, on request a value of chunks, retrieval memory. With ``privileged_supervision`` the simulator's
object poses supervise the encoder and the dynamics *in training* (``poses``); ``in_hindsight``, and always
without, what the episodes tell afterwards and the outcomes do (``hindsight``, ``self_supervised``). At test
time all of it reads images, proprioception and the instruction.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...interfaces import ForethoughtError
from ...reward.calibration import METHODS
from ...reward.chunk_value import FILE as CHUNK_VALUE_FILE
from ...reward.chunk_value import ChunkValue
from ...reward.schemes import Scheme, find_scheme
from ...reward.schemes.outcome import DISCOUNTED
from ...reward.value import ValueEnsemble, ValueModel
from ...weights import shrink
from ...world_models.dynamics import ChunkDynamics
from ...world_models.encoder import (
    CONTEXT_SIZE,
    PROPRIOCEPTION_FEATURES,
    ObservationEncoder,
    proprioception_features,
)
from ...world_models.latent import FILE as WORLD_MODEL_FILE
from ...world_models.latent import LatentWorldModel
from ...world_models.retrieval import FILE as MEMORY_FILE
from ..evaluation.plan import parse_indices
from .dataset import EpisodeSet, load_episodes
from .disagreement import calibrate_disagreement
from .hindsight import Hindsight, hindsight
from .layout import Layout
from .memory import build_memory
from .origins import given_world_model, start_encoder, start_value
from .poses import pose_loss, standardise_poses
from .self_supervised import JointModel, joint_loss, standardise_ways
from .stages import Stages
from .transitions import TransitionSampler, encode_episodes
from .values import ValueData, calibrate, chunk_value_loss, misread_frames, value_loss


def train(
    *,
    rollouts: Sequence[str],
    out: str,
    cameras: Sequence[str] = ("eye_in_hand_rgb",),
    image_size: int = 64,
    backbone: str | None = None,
    horizon: int = 8,
    privileged_supervision: bool = True,
    in_hindsight: bool | None = None,
    features: int = 32,
    held_width: float = 0.0028,
    discount: float = 0.99,
    schemes: Sequence[str | Mapping[str, Any]] = ("success_discounted", "progress_successes_only"),
    mismatched: float = 0.0,
    calibration: str = "none",
    chunk_value: bool = False,
    encoder_steps: int = 2500,
    encoder_batch: int = 256,
    encoder_from: str | None = None,
    world_model_from: str | None = None,
    values_from: str | None = None,
    dynamics_steps: int = 5000,
    value_steps: int = 3000,
    batch: int = 512,
    members: int = 5,
    shift: int = 0,
    memory_entries: int = 24000,
    init_states: str | Sequence[int] = "all",
    eight_bits: bool = False,
    seed: int = 0,
) -> Path:
    """Trains encoder, dynamics, values and memory from the folders and writes a models folder.

    Args:
        rollouts: Folders of the policy's own episodes, failures included; demonstrations may join them.
        out: Folder to write into; a killed run goes on from what is there.
        cameras: Cameras that the encoder sees.
        image_size: Side of the images that it sees, pixels.
        backbone: A frozen image model (DINOv2, DINOv3, SigLIP 2, V-JEPA 2: folder or name of weights that are
            on this machine) whose patch tokens it sees; None: convolutions learned from scratch.
        horizon: Chunk length H, control steps.
        privileged_supervision: Whether simulator state supervises training.
        in_hindsight: Whether what episodes tell afterwards supervises it, beside the poses if these do; None:
            only without privileged supervision. The latent of poses alone is exact in simulator states, which
            the simulator as world model needs.
        features: Size of the learned latent in hindsight: 7 numbers are told, 18 are poses with privileged
            supervision, the others are free. With poses alone it is 18.
        held_width: In hindsight: fingers that stay this far apart after a command to close hold something,
            metres. See ``hindsight``.
        discount: γ of the value, per control step.
        schemes: Of ``reward/schemes``, by name or as ``{name: {option: value}}``; the first is the default
            value, the others get a file each.
        mismatched: Moments with another task's instruction, worth 0, as a share of those drawn.
        calibration: How values are mapped to discounted success: none, temperature, platt or isotonic.
            Schemes that leave failures out stay as they are.
        chunk_value: Whether to train a value of latent and chunk as well, by discounted success: for a search
            without a world model (``world_models.model_free``). ``mismatched`` and ``calibration`` leave it
            as it is.
        encoder_steps: Gradient steps of the encoder.
        encoder_batch: Frames a step of the encoder.
        encoder_from: Models folder whose encoder this one starts from, as far as their shapes agree; None:
            from scratch.
        world_model_from: Models folder whose encoder and dynamics are taken as they are: values and memory
            alone are learned. It was trained with the same cameras, image size, chunk length, members and
            supervision. None: all is learned.
        values_from: Models folder with whose value every value of the ``schemes`` starts, whatever it was
            learned by; with ``world_model_from`` the same. None: from scratch.
        dynamics_steps: Gradient steps of the dynamics.
        value_steps: Gradient steps of each value.
        batch: Samples a step of dynamics and value, each member its own.
        members: Ensemble size E.
        shift: Random image shift while the encoder of a latent of poses alone trains, pixels; else 0.
        memory_entries: At most so many chunks in the memory, shared equally among the tasks.
        init_states: Only episodes that started there are learned from, such as ``0-21``: the others can then
            judge the result.
        eight_bits: Whether the files hold their matrices in 8 bits in place of 16, see ``weights.shrink``.
        seed: Of initialisation and batches.

    Returns:
        The models folder.
    """
    from ..benchmarks.libero import ACTION_SPEC

    chosen = _schemes(schemes)
    if calibration not in ("none", *METHODS):
        raise ForethoughtError(f"calibration={calibration} must be one of none, {', '.join(METHODS)}.")
    if backbone is not None and shift:
        raise ForethoughtError(
            f"A frozen backbone sees every picture once: none can be shifted; got shift={shift}. Set shift=0."
        )
    layout = Layout.choose(
        not privileged_supervision if in_hindsight is None else in_hindsight, privileged_supervision, features
    )
    if layout.in_hindsight and shift:
        raise ForethoughtError(
            f"A latent told in hindsight learns from pairs of pictures, none of which is shifted; got "
            f"shift={shift}. Set shift=0, or in_hindsight=false with privileged supervision."
        )
    if world_model_from is not None and encoder_from is not None:
        raise ForethoughtError(
            f"encoder_from='{encoder_from}' says where an encoder starts to learn, and world_model_from="
            f"'{world_model_from}' that none does. Give one of them."
        )
    torch.manual_seed(seed)
    encoder = ObservationEncoder(cameras, image_size, layout.features, backbone, places=layout.in_hindsight)
    given = None
    if world_model_from is not None:
        given = given_world_model(world_model_from, encoder, privileged_supervision, horizon, members)
        encoder = given.encoder
    kept = None if init_states == "all" else parse_indices(init_states, "init_states", sys.maxsize)
    data = load_episodes(rollouts, cameras, executed=True, init_states=kept)
    if privileged_supervision and data.privileged is None:
        raise ForethoughtError(
            "privileged_supervision=true needs episodes with the simulator's state (obs/privileged); "
            "these have none. "
            "Collect with `forethought collect`, or set privileged_supervision=false."
        )
    folder = Path(out)
    stages = Stages(folder / "stages", seed)
    data = _seen(encoder, data)
    afterwards = hindsight(data, held_width, ACTION_SPEC.gripper[0]) if layout.in_hindsight else None
    if given is None:
        _learn_encoder(
            stages,
            encoder,
            data,
            layout,
            afterwards,
            encoder_from,
            horizon=horizon,
            steps=encoder_steps,
            batch=encoder_batch,
            discount=discount,
            shift=shift,
        )
    encoded = encode_episodes(encoder, data, layout, afterwards)
    sample = TransitionSampler(data, encoded, horizon, batch, members)
    if given is None:
        dynamics = ChunkDynamics(
            encoder.latent_size + CONTEXT_SIZE, CONTEXT_SIZE, horizon, data.actions.shape[1], members
        )
        _scale_steps(dynamics, sample)
        stages.run("dynamics", dynamics, sample.loss, dynamics_steps)
        expected_error = calibrate_disagreement(dynamics, sample, seed)
    else:
        dynamics, expected_error = given.dynamics, given.expected_error
    lineage: dict[str, Any] = {"data": data.summary(), "seed": seed, "discount": discount}
    steps = {"encoder": encoder_steps, "dynamics": dynamics_steps} if given is None else {}
    lineage |= {"steps": steps | {"value": value_steps}}
    origins = {"encoder_from": encoder_from, "world_model_from": world_model_from, "values_from": values_from}
    for name, origin in origins.items():
        lineage |= {} if origin is None else {name: Path(origin).name}
    LatentWorldModel(
        encoder,
        dynamics,
        privileged_supervision=privileged_supervision,
        expected_error=expected_error,
    ).save(folder, lineage)
    misread = misread_frames(encoder, data, seed) if mismatched > 0 else None

    def lessons(uses_failures: bool) -> ValueData:
        return ValueData(
            data,
            encoded,
            dynamics,
            horizon=horizon,
            discount=discount,
            batch=batch,
            uses_failures=uses_failures,
            increments=(*ACTION_SPEC.position, *ACTION_SPEC.rotation),
            mismatched=mismatched,
            misread=misread,
        )

    files, errors = _learn_values(stages, chosen, lessons, folder, calibration, value_steps, values_from)
    if errors:
        lineage |= {"calibration": {"method": calibration, "error": errors}}
    if chunk_value:
        files.append(_learn_chunk_value(stages, lessons(True), folder, value_steps))
    build_memory(data, encoded, horizon, memory_entries, seed).save(folder)
    for name in (WORLD_MODEL_FILE, MEMORY_FILE, *files) if eight_bits else ():
        shrink(folder / name)
    description = {
        "world_model": {"kind": "latent"},
        "reward": {"kind": "value"},
        "memory": {"kind": "retrieval"},
        "cameras": list(cameras),
        "horizon": horizon,
        "action": ACTION_SPEC.to_dict(),
        "privileged_supervision": privileged_supervision,
        "lineage": lineage,
    }
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")
    return folder


def _schemes(wanted: Sequence[str | Mapping[str, Any]]) -> list[Scheme]:
    chosen = [find_scheme(one) for one in wanted]
    if not chosen or len({scheme.name for scheme in chosen}) != len(chosen):
        raise ForethoughtError(f"schemes={list(wanted)} must name at least one scheme, and each only once.")
    return chosen


def _learn_values(
    stages: Stages,
    schemes: Sequence[Scheme],
    lessons: Callable[[bool], ValueData],
    folder: Path,
    calibration: str,
    steps: int,
    start_from: str | None,
) -> tuple[list[str], dict[str, tuple[float, float] | None]]:
    """One value a scheme.

    Returns:
        The files written, and the expected calibration error before and after by scheme, None where too few
        episodes were left out to measure it.
    """
    files: list[str] = []
    errors: dict[str, tuple[float, float] | None] = {}
    for index, scheme in enumerate(schemes):
        source = lessons(scheme.uses_failures)
        value = ValueEnsemble(source.encoded.frames.shape[1], source.dynamics.members)
        start_value(value, start_from)
        stages.run(f"value_{scheme.name}", scheme.learner(value), value_loss(source, scheme), steps, 1e-2)
        mended = None
        if calibration != "none" and scheme.uses_failures:
            mended = calibrate(source, value, calibration, stages.seed)
            errors[scheme.name] = None if mended is None else mended.error
        files.append("value.safetensors" if index == 0 else f"value_{scheme.name}.safetensors")
        ValueModel(value, scheme.name, mended).save(folder / files[-1])
    return files, errors


def _learn_chunk_value(stages: Stages, source: ValueData, folder: Path, steps: int) -> str:
    """A value of latent and chunk; returns its file."""
    chunk = source.horizon * source.data.actions.shape[1]
    judge = ValueEnsemble(source.encoded.frames.shape[1] + chunk, source.dynamics.members)
    stages.run("chunk_value", judge, chunk_value_loss(source, DISCOUNTED), steps, 1e-2)
    ChunkValue(judge, DISCOUNTED.name).save(folder)
    return CHUNK_VALUE_FILE


def _seen(encoder: ObservationEncoder, data: EpisodeSet) -> EpisodeSet:
    """The episodes as the encoder's towers see them: with a frozen backbone its tokens, else the pictures."""
    eyes = [getattr(tower, "backbone", None) for tower in encoder.towers]
    images = {
        name: data.images[name] if eye is None else eye.precompute(data.images[name])
        for name, eye in zip(encoder.cameras, eyes, strict=True)
    }
    return replace(data, images=images)


def _standardise(
    encoder: ObservationEncoder, data: EpisodeSet, layout: Layout, afterwards: Hindsight | None
) -> None:
    body = proprioception_features(torch.from_numpy(data.proprioception))
    encoder.mean[:PROPRIOCEPTION_FEATURES] = body.mean(0)
    encoder.std[:PROPRIOCEPTION_FEATURES] = body.std(0).clamp_min(5e-3)
    if layout.poses is not None:
        standardise_poses(encoder, data, layout.poses)
    if afterwards is not None:
        standardise_ways(encoder, data, layout, afterwards)


def _learn_encoder(
    stages: Stages,
    encoder: ObservationEncoder,
    data: EpisodeSet,
    layout: Layout,
    afterwards: Hindsight | None,
    start_from: str | None,
    *,
    horizon: int,
    steps: int,
    batch: int,
    discount: float,
    shift: int,
) -> None:
    _standardise(encoder, data, layout, afterwards)
    start_encoder(encoder, start_from)
    if afterwards is None:
        assert layout.poses is not None
        stages.run("encoder", encoder, pose_loss(data, encoder, layout.poses, batch, shift), steps)
        return
    joint = JointModel(encoder, horizon, data.actions.shape[1])
    loss = joint_loss(data, encoder, layout, afterwards, horizon=horizon, batch=batch, discount=discount)
    stages.run("encoder", joint, loss, steps)


def _scale_steps(dynamics: ChunkDynamics, sample: TransitionSampler) -> None:
    latent, state = sample.draw(torch.Generator().manual_seed(0))
    target, _ = sample.target(sample.jump(state)[1])
    change = (target - latent).flatten(0, 1)[:, : len(dynamics.step_scale)]
    dynamics.step_scale.copy_(change.std(0).clamp_min(0.05))
