"""Earlier models that training starts from or takes as they are: whether they fit, and what is taken over."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...interfaces import ForethoughtError
from ...reward.value import ValueEnsemble
from ...reward.value import load as load_value
from ...world_models.encoder import ObservationEncoder
from ...world_models.flow import FrameTransformer
from ...world_models.frames import FrameCodec
from ...world_models.latent import LatentWorldModel
from ...world_models.latent import load as load_latent
from ...world_models.video import load as load_video


def require_same(option: str, origin: str, found: Mapping[str, object], asked: Mapping[str, object]) -> None:
    """Refuses an origin that was trained with other settings than those ``asked``, ``found`` in it.

    Raises:
        ForethoughtError: They differ; names the settings that do.
    """
    if differing := [
        f"{name}={found[name]} (asked: {asked[name]})" for name in asked if found[name] != asked[name]
    ]:
        raise ForethoughtError(
            f"{option}='{origin}' was trained with {', '.join(differing)}. Give the options that it was "
            f"trained with, or train from scratch with {option}=null."
        )


def given_world_model(
    folder: str, wanted: ObservationEncoder, privileged_supervision: bool, horizon: int, members: int
) -> LatentWorldModel:
    """The world model that is taken as it is; it must be what the other options describe."""

    def of(encoder: ObservationEncoder, privileged: bool, length: int, size: int) -> dict[str, object]:
        return {
            "cameras": encoder.cameras,
            "image_size": encoder.image_size,
            "backbone": encoder.backbone,
            "in_hindsight": encoder.places,
            "features": encoder.features,
            "privileged_supervision": privileged,
            "horizon": length,
            "members": size,
        }

    given = load_latent(folder)
    found = of(given.encoder, given.privileged_supervision, given.horizon, given.dynamics.members)
    require_same("world_model_from", folder, found, of(wanted, privileged_supervision, horizon, members))
    return given


def start_encoder(encoder: ObservationEncoder, folder: str | None) -> None:
    """Takes over the weights of another encoder that have the same name and shape, but not its scales."""
    if folder is None:
        return
    other = dict(load_latent(folder).encoder.named_parameters())
    taken = {
        name: other[name]
        for name, own in encoder.named_parameters()
        if name in other and other[name].shape == own.shape
    }
    if not taken:
        raise ForethoughtError(
            f"encoder_from='{folder}': that encoder has no weights of the same names and shapes. Train with "
            "its cameras and image_size, or from scratch with encoder_from=null."
        )
    encoder.load_state_dict(taken, strict=False)


def start_value(value: ValueEnsemble, folder: str | None) -> None:
    """Takes over the weights of the value in a folder."""
    if folder is None:
        return
    other = load_value(folder).network.state_dict()
    own = value.state_dict()
    differing = [name for name in own if name not in other or other[name].shape != own[name].shape]
    if differing:
        raise ForethoughtError(
            f"values_from='{folder}': that value has other shapes ({', '.join(differing)}). Train with its "
            "world model (world_model_from), or from scratch with values_from=null."
        )
    value.load_state_dict(other)


def start_video(codec: FrameCodec, flow: FrameTransformer, folder: str) -> tuple[Tensor, Tensor]:
    """Takes over codec and flow of the video model in a folder, with all their scales.

    Returns:
        Mean and deviation by which it standardises robot states, ``[11]`` each.

    Raises:
        ForethoughtError: It has other sizes or cameras.
    """
    given = load_video(folder)
    found, asked = given.codec.shape | given.dynamics.shape, codec.shape | flow.shape
    # The transformer's width was put over the codec's: they are compared by names of their own.
    found |= {"codec_width": given.codec.shape["width"]}
    asked |= {"codec_width": codec.shape["width"]}
    require_same("model_from", folder, found, asked)
    codec.load_state_dict(given.codec.state_dict())
    flow.load_state_dict(given.dynamics.state_dict())
    return given.body_mean, given.body_std
