"""What `--policy.type=forethought` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.configs.policies import PreTrainedConfig

from forethought.interfaces import ForethoughtError


@PreTrainedConfig.register_subclass("forethought")
@dataclass
class ForethoughtConfig(PreTrainedConfig):
    """A policy of LeRobot's that looks ahead.

    Attributes:
        base_path: The policy: a folder that LeRobot saved (weights, configuration, processors), or the name
            of one on the Hub.
        base_args: Changes to its configuration, such as ``--n_action_steps=8``.
        models: What to imagine with: a folder that `forethought train models` wrote, the name of a shipped
            one, or ``module:function``, a function of yours that returns a ``forethought.Models``. By default
            the folder ``forethought`` inside of ``base_path``; without either the policy acts alone.
        planner: Name of a preset.
        options: Options of the preset, such as ``{simulations: 64, depth: 2}``.
        samples: Chunks asked of the policy; by default as many as the planner compares.
        deadline_ms: Milliseconds after which the planner is given up and the policy acts; None waits.
        seed: Seed of all draws of the search.
        cameras: Names that the models know cameras by to the names that the policy does, as in
            ``{agentview_rgb: camera1}``; not needed for usual names.
        rename_map: As LeRobot's option of that name, which it only hands to policies with ``--policy.path``.
    """

    base_path: str | None = None
    base_args: list[str] = field(default_factory=list)
    models: str | None = None
    planner: str = "forethought"
    options: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None
    deadline_ms: float | None = None
    seed: int = 0
    cameras: dict[str, str] = field(default_factory=dict)
    rename_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base_path is not None:
            base = self.base_config()
            self.n_obs_steps = base.n_obs_steps
            self.input_features = self.input_features or base.input_features
            self.output_features = self.output_features or base.output_features

    def base_config(self) -> PreTrainedConfig:
        """The configuration of the policy, on the device asked for.

        Raises:
            ForethoughtError: There is no policy at ``base_path``, or it is one of this kind.
        """
        if self.base_path is None:
            raise ForethoughtError(
                "Say which policy shall look ahead: --policy.base_path=<a folder that LeRobot saved, or a "
                "name on the Hub>."
            )
        try:
            base = PreTrainedConfig.from_pretrained(
                self.base_path, cli_overrides=[*self.base_args, f"--device={self.device}"]
            )
        except (Exception, SystemExit) as error:
            raise ForethoughtError(
                f"No configuration of a LeRobot policy can be read from base_path={self.base_path!r} with "
                f"base_args={self.base_args} ({type(error).__name__}: {error}). Give the folder that holds "
                "config.json and model.safetensors (often …/pretrained_model)."
            ) from error
        if isinstance(base, ForethoughtConfig):
            raise ForethoughtError(f"{self.base_path} looks ahead already; give the policy inside of it.")
        base.pretrained_path = Path(self.base_path)
        return base

    def models_path(self) -> str | None:
        """Where the models are, or None where nobody says."""
        beside = Path(self.base_path or "", "forethought")
        return self.models or (str(beside) if (beside / "config.json").is_file() else None)

    def validate_features(self) -> None:
        """The policy does that when it is made."""

    def get_optimizer_preset(self) -> Any:
        """The policy's."""
        return self.base_config().get_optimizer_preset()

    def get_scheduler_preset(self) -> Any:
        """The policy's."""
        return self.base_config().get_scheduler_preset()

    @property
    def observation_delta_indices(self) -> list | None:
        """The policy's."""
        return self.base_config().observation_delta_indices

    @property
    def action_delta_indices(self) -> list | None:
        """The policy's."""
        return self.base_config().action_delta_indices

    @property
    def reward_delta_indices(self) -> list | None:
        """The policy's."""
        return self.base_config().reward_delta_indices
