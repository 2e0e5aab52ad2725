"""The networks behind one face for training: image in, prediction and encoder tokens out; and what they serve once trained."""

from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from depth_anything_ros.errors import ConfigError

from .checkpoint import TrainingRecord, is_checkpoint, read_checkpoint, served_weights
from .config import NetworkConfig, TrainingConfig, config_from_dict
from .depth_anything import DepthAnything, DepthAnythingArchitecture, published_architecture
from .encoder import PATCH, patch_grid
from .model import ENCODER_PARTS, MAX_DEPTH_M, MIN_DEPTH_M, SIZE_MULTIPLE, CompactStudent
from .weights import WeightsError, architecture_of_file, read_weights

LEAST_DEPTH_M = 1e-3
ALIVE = 1.0
"""Disparity that an untrained Depth Anything head starts from."""
SEMANTIC = "network."
"""Beginning of the names of a depth network's weights inside a pre-trained encoder's checkpoint (`SemanticEncoder`)."""
MIN_LOG_DEPTH = -4.0
"""Where the disparity exp(-log depth) of the compact student stops growing: an untrained one must not overflow."""


def disparity_of(log_depth: Tensor) -> Tensor:
    """Return exp(-log depth), 1/metres for log metres, of any shape; bounded, see `MIN_LOG_DEPTH`."""
    return torch.exp(-log_depth.clamp(min=MIN_LOG_DEPTH))


class Prediction(NamedTuple):
    """What a network says of a batch in training.

    Attributes:
        values: (N, h, w) float; disparity up to scale and shift of a relative network, log metres of a metric one.
        tokens: (N, T, C) float; what its decoder reads of the encoder's last layer, row by row.
    """

    values: Tensor
    tokens: Tensor


class Network(nn.Module):
    """A depth network in training.

    Attributes:
        max_depth_m: None for relative output.
        size_multiple: both sides of an image are multiples of it.
        token_dim: length of a token.
        token_px: side of the square of pixels that a token stands for.
    """

    max_depth_m: float | None
    size_multiple: int
    token_dim: int

    @property
    def token_px(self) -> int:
        """Both kinds of network have one token per smallest unit of size."""
        return self.size_multiple

    @abstractmethod
    def tokens(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) normalised RGB -> (N, T, C) encoder tokens alone."""

    @abstractmethod
    def forward(self, image: Tensor) -> Prediction:
        """(N, 3, h, w) normalised RGB -> prediction."""

    @abstractmethod
    def serve(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) normalised RGB -> (N, h, w) what the exported file returns: disparity, or depth in metres."""

    @abstractmethod
    def is_encoder(self, name: str) -> bool:
        """Return whether a parameter (or buffer) of that name belongs to the encoder."""


class CompactNetwork(Network):
    """The compact student; relative networks use exp(-log depth) as disparity, which is smooth and never dies."""

    size_multiple = SIZE_MULTIPLE

    def __init__(self, architecture: dict[str, Any], metric: bool) -> None:
        """Build with random weights; `architecture` holds keyword arguments of `CompactStudent`."""
        super().__init__()
        self.net = CompactStudent(**{key: tuple(value) if isinstance(value, list) else value for key, value in architecture.items()})
        self.max_depth_m = MAX_DEPTH_M if metric else None
        self.token_dim = self.net.context.position.out_channels

    def tokens(self, image: Tensor) -> Tensor:
        """Tokens are the places of the coarsest map."""
        return self.net.features(image)[-1].flatten(2).transpose(1, 2)

    def forward(self, image: Tensor) -> Prediction:
        """See `Network.forward`."""
        features = self.net.features(image)
        fused = self.net.fused(features)
        with torch.autocast(image.device.type, enabled=False):
            log_depth = self.net.last(fused.float())
        values = log_depth if self.max_depth_m else disparity_of(log_depth)
        return Prediction(values, features[-1].flatten(2).transpose(1, 2))

    def serve(self, image: Tensor) -> Tensor:
        """See `Network.serve`."""
        if self.max_depth_m is None:
            return disparity_of(self.net.log_depth(image))
        return torch.exp(torch.clamp(self.net.log_depth(image), math.log(MIN_DEPTH_M), math.log(MAX_DEPTH_M)))

    def is_encoder(self, name: str) -> bool:
        """See `Network.is_encoder`."""
        return name.removeprefix("net.").startswith(ENCODER_PARTS)


class DepthAnythingNetwork(Network):
    """A Depth Anything network. What the published weights hold without using it gets no gradient, as distributed training demands."""

    size_multiple = PATCH

    def __init__(self, architecture: DepthAnythingArchitecture) -> None:
        """Build with random weights."""
        super().__init__()
        self.net = DepthAnything(architecture)
        self.max_depth_m = architecture.max_depth_m
        self.token_dim = architecture.encoder.dim
        if self.max_depth_m is None:  # a random head may say 0 everywhere behind its last ReLU, and would never get a gradient
            nn.init.constant_(self.net.depth_head.scratch.output_conv2[2].bias, ALIVE)
        self.net.pretrained.mask_token.requires_grad_(False)
        self.net.depth_head.scratch.get_submodule("refinenet4.resConfUnit1").requires_grad_(False)

    def tokens(self, image: Tensor) -> Tensor:
        """Tokens are the patches after the last block and the final norm."""
        encoder = self.net.pretrained
        return encoder(image, (len(encoder.blocks) - 1,))[0]

    def forward(self, image: Tensor) -> Prediction:
        """See `Network.forward`."""
        taps = self.net.pretrained(image, self.net.architecture.taps)
        fused = self.net.depth_head.fused(taps, patch_grid(image.shape[-2:]))
        with torch.autocast(image.device.type, enabled=False):
            values = self.net.depth_head.last(fused.float())
        return Prediction(values if self.max_depth_m is None else torch.log(values.clamp(min=LEAST_DEPTH_M)), taps[-1])

    def serve(self, image: Tensor) -> Tensor:
        """See `Network.serve`."""
        return self.net(image)

    def is_encoder(self, name: str) -> bool:
        """See `Network.is_encoder`."""
        return name.removeprefix("net.").startswith("pretrained.")


class Served(nn.Module):
    """A trained network as it is exported: image -> map."""

    def __init__(self, network: Network) -> None:
        """Take the network over, in evaluation mode."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """See `Network.serve`."""
        return self.network.serve(image)


def build_network(config: TrainingConfig) -> Network:
    """Build what a configuration describes, with random weights.

    Raises:
        ConfigError: there is no such network, or its architecture contradicts the stage.
    """
    metric = config.stage == "metric"
    if config.network.name == "compact":
        try:
            return CompactNetwork(config.network.architecture, metric)
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise ConfigError(f"network.architecture: {error}") from error
    return DepthAnythingNetwork(_architecture(config.network, config.metric.max_depth_m if metric else None))


def _architecture(config: NetworkConfig, max_depth_m: float | None) -> DepthAnythingArchitecture:
    try:
        published = published_architecture(config.name, config.version, max_depth_m).to_dict() if not config.architecture else {}
        built = DepthAnythingArchitecture.from_dict({**published, **config.architecture, "max_depth_m": max_depth_m})
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"network.architecture: {error}") from error
    if built.taps[-1] != built.encoder.blocks - 1:
        raise ConfigError(
            f"network.architecture: taps {built.taps} leave out the last block, which would never learn; end with {built.encoder.blocks - 1}"
        )
    return built


def load_initial(network: Network, path: Path, parts: str) -> int:
    """Start from other weights; everything that is asked for must be in the file and fit.

    Args:
        network: gets the weights.
        path: checkpoint of this package, or DINOv2 or Depth Anything weights.
        parts: `encoder` or `all`.

    Returns:
        The number of tensors that were loaded.

    Raises:
        ConfigError: something is missing or of another shape.
    """
    given, own = weights_of_file(path), network.state_dict()
    wanted = {name for name in own if parts == "all" or network.is_encoder(name)}
    missing = sorted(wanted - set(given))
    if missing:
        raise ConfigError(f"'{path}' lacks {len(missing)} of {len(wanted)} tensors of this network, such as '{missing[0]}'; is it another network?")
    other = [f"'{name}' {tuple(given[name].shape)}, not {tuple(own[name].shape)}" for name in sorted(wanted) if given[name].shape != own[name].shape]
    if other:
        raise ConfigError(f"'{path}' is of another size: {other[0]}")
    if parts == "all" and isinstance(network, DepthAnythingNetwork):
        _check_taps(path, network.net.architecture.taps)
    network.load_state_dict({name: given[name] for name in wanted}, strict=False)
    return len(wanted)


def _check_taps(path: Path, taps: tuple[int, ...]) -> None:
    """Refuse weights whose decoder reads other blocks: V1 and V2 files hold the same names and shapes."""
    try:
        if is_checkpoint(path):
            config = config_from_dict(read_checkpoint(path)[1].config)
            stated = _architecture(config.network, None).taps
        else:
            stated = architecture_of_file(path).taps
    except WeightsError as error:
        reason = "neither its name nor a config.json says which blocks its decoder reads, V1's or V2's"
        raise ConfigError(f"'{path}': {reason}; give it its official name, or start from the encoder alone") from error
    if stated != taps:
        raise ConfigError(
            f"the decoder in '{path}' reads the blocks {stated}, this network's {taps}: set network.version, or start from the encoder alone"
        )


def weights_of_file(path: Path) -> dict[str, Tensor]:
    """Return the served weights of a checkpoint, or of a published file, by this package's names."""
    if not path.is_file():
        raise ConfigError(f"there is no weight file '{path}'")
    if is_checkpoint(path):
        names = served_weights(read_checkpoint(path)[0])
        return {name.removeprefix(SEMANTIC): value for name, value in names.items()}
    tensors = read_weights(path)
    prefix = "net." if any(name.startswith("pretrained.") for name in tensors) else "net.pretrained."  # the latter: DINOv2 alone
    return {prefix + name: value for name, value in tensors.items()}


def frozen_encoder(config: TrainingConfig) -> Network | None:
    """Return the encoder that the student's features are anchored to, or None; it never learns.

    Raises:
        ConfigError: the file does not fit the student's network (same size as the student's encoder; the paper's choice).
    """
    if not config.network.frozen_encoder:
        return None
    network = build_network(config)
    load_initial(network, Path(config.network.frozen_encoder), "encoder")
    return network.eval().requires_grad_(False)


def open_network(path: Path) -> tuple[Network, TrainingConfig, TrainingRecord]:
    """Open a checkpoint of a depth network for use: its served weights, in evaluation mode.

    Raises:
        ConfigError: it is no such checkpoint.
    """
    tensors, record = read_checkpoint(path)
    config = config_from_dict(record.config)
    if config.stage == "encoder":
        raise ConfigError(f"'{path}' is a pre-trained encoder and predicts no depth; train a network from it (network.initial)")
    network = build_network(config)
    network.load_state_dict(served_weights(tensors))
    return network.eval().requires_grad_(False), config, record
