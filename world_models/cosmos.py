"""NVIDIA Cosmos 3, the action-conditioned pipeline of diffusers, as a world model.

    pipeline = diffusers.Cosmos3OmniPipeline.from_pretrained(...).to("cuda")
    model = CosmosWorldModel(pipeline, horizon=16, camera="front", domain="bridge_orig_lerobot", actions=raw)

It imagines pictures, one candidate a call, seconds each: few candidates, judged by a reward model that
looks at pictures (``decode``). The pipeline wants actions of its own kind (for most robots 9 numbers of a
pose and a grasp): ``actions`` turns chunks in environment units into them, knowing where the robot is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from ..interfaces import ForethoughtError, ImaginationCost, Latent, Observation, Prediction
from .optional import require

Actions: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a chunk ``[H, A]`` in environment units and proprioception ``[P]`` to the domain's own ``[H, D]``."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One latent.

    Attributes:
        picture: What the camera sees, ``uint8 [h, w, 3]``.
        proprioception: ``float32 [P]`` of the last *observed* state; a picture does not tell what came of it.
        instruction: The task in words.
        ahead: Chunks imagined since then.
    """

    picture: np.ndarray
    proprioception: np.ndarray
    instruction: str
    ahead: int = 0


class CosmosWorldModel:
    """A ``Cosmos3OmniPipeline`` behind the ``WorldModel`` protocol. Latents are object arrays of ``Scene``.

    Attributes:
        horizon: Chunk length H in control steps; the pipeline imagines one frame a step.
        cameras: The camera whose pictures it continues.
        cost: Tier ``foundation``, one candidate at a time.

    Args:
        pipeline: The pipeline, on its device.
        domain: One of the pipeline's embodiments; it fixes the width of an action.
        actions: See ``Actions``; None hands chunks over as they are.
        resolution: Resolution tier of the pipeline: 256, 480, 704 or 720.
        view: ``ego_view``, ``third_person_view``, ``wrist_view`` or ``concat_view``.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance; 1 halves the cost.
        options: Further arguments of every call of the pipeline.
    """

    privileged_supervision = False

    def __init__(
        self,
        pipeline: Any,
        *,
        horizon: int,
        camera: str,
        domain: str,
        actions: Actions | None = None,
        resolution: int = 256,
        view: str = "third_person_view",
        steps: int = 4,
        guidance: float = 1.0,
        options: dict[str, Any] | None = None,
        cost: ImaginationCost | None = None,
    ) -> None:
        self.pipeline, self.horizon, self.cameras = pipeline, horizon, (camera,)
        self.domain, self.actions = domain, actions or (lambda chunk, proprioception: chunk)
        self.resolution, self.view, self.steps, self.guidance = resolution, view, steps, guidance
        self.options = dict(options or {})
        self.cost = cost or ImaginationCost("foundation", wave=1)
        self._condition = require(
            "diffusers.pipelines.cosmos", "The Cosmos world model", "'forethought[video]'"
        ).CosmosActionCondition

    def encode(self, observation: Observation) -> Latent:
        """The scenes, an object array ``[B]``."""
        camera = self.cameras[0]
        if camera not in observation.images:
            raise ForethoughtError(
                f"The Cosmos world model looks at {camera!r}; the observation has {list(observation.images)}."
            )
        return _objects(
            [
                Scene(np.asarray(picture, np.uint8), np.asarray(body, np.float32), text)
                for picture, body, text in zip(
                    observation.images[camera],
                    observation.proprioception,
                    observation.instruction,
                    strict=True,
                )
            ]
        )

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """What the camera shows after each chunk ``[M, H, A]``; disagreement and done are 0.

        Raises:
            ForethoughtError: The chunks have another length, or the pipeline refuses the actions.
        """
        if chunks.ndim != 3 or chunks.shape[1] != self.horizon:
            raise ForethoughtError(
                f"The Cosmos world model imagines chunks [M, {self.horizon}, A]; got {list(chunks.shape)}."
            )
        after = [
            Scene(self.film(scene, chunk)[-1], scene.proprioception, scene.instruction, scene.ahead + 1)
            for scene, chunk in zip(_scenes(latent), chunks, strict=True)
        ]
        nothing = np.zeros(len(after), np.float32)
        return Prediction(_objects(after), nothing, nothing.copy())

    def film(self, scene: Scene, chunk: np.ndarray) -> np.ndarray:
        """Every frame that follows, ``uint8 [H, h, w, 3]``. The same scene and chunk give the same."""
        from PIL import Image

        raw = torch.as_tensor(np.asarray(self.actions(chunk, scene.proprioception), np.float32))
        try:
            condition = self._condition(
                mode="forward_dynamics",
                chunk_size=self.horizon,
                domain_name=self.domain,
                resolution_tier=self.resolution,
                raw_actions=raw,
                image=Image.fromarray(scene.picture),
                view_point=self.view,
            )
        except ValueError as error:
            raise ForethoughtError(
                f"The pipeline refuses the actions: {error} Give CosmosWorldModel an `actions` function that "
                "turns a chunk [H, A] into the domain's own numbers."
            ) from error
        found = self.pipeline(
            prompt=scene.instruction,
            action=condition,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
            **self.options,
        )
        frames = np.asarray(found.video, np.float32)
        frames = frames[0] if frames.ndim == 5 else frames
        return (frames[1:].clip(0, 1) * 255).round().astype(np.uint8)

    def decode(self, latent: Latent) -> dict[str, np.ndarray]:
        """What scenes ``[M]`` look like: ``uint8 [M, h, w, 3]`` by camera."""
        return {self.cameras[0]: np.stack([scene.picture for scene in _scenes(latent)])}


def _objects(scenes: list[Scene]) -> np.ndarray:
    found = np.empty(len(scenes), dtype=object)
    found[:] = scenes
    return found


def _scenes(latent: Any) -> list[Scene]:
    if not all(isinstance(scene, Scene) for scene in latent):
        raise ForethoughtError(
            f"The Cosmos world model got a latent of type {type(latent).__name__}; it expects the object "
            "array [M] that its encode() or step() returned."
        )
    return list(latent)
