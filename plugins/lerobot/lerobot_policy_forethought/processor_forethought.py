"""The processors of the policy that looks ahead are those of the policy inside of it."""

from __future__ import annotations

from typing import Any

from lerobot.policies.factory import make_pre_post_processors

from .configuration_forethought import ForethoughtConfig


def make_forethought_pre_post_processors(
    config: ForethoughtConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[Any, Any]:
    """Those saved in ``base_path``, on the device asked for; they know the statistics of its training."""
    del dataset_stats
    changes: dict[str, Any] = {"device_processor": {"device": str(config.device)}}
    if config.rename_map:
        changes["rename_observations_processor"] = {"rename_map": config.rename_map}
    return make_pre_post_processors(
        config.base_config(), str(config.base_path), preprocessor_overrides=changes
    )
