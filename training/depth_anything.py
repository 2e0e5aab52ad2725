"""The Depth Anything network: DINOv2 encoder + DPT head, with the official parameter names, and its form for export.

Source: Depth Anything (Yang et al. 2024, arXiv:2401.10891), Depth Anything V2 (arXiv:2406.09414); head: DPT (Ranftl et al.
2021, arXiv:2103.13413), section 3. V1 and V2 differ in which blocks the head reads, and only there: their weight files
hold the same names and shapes, so these taps are part of the architecture and are stored with every checkpoint.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import ENCODERS, PATCH, Attention, Encoder, EncoderArchitecture, LayerScale, patch_grid, run_blocks

EXPORT_OPSET = 18
HEAD_CHANNELS = 32
"""Channels before the last convolution."""


@dataclass(frozen=True)
class DepthAnythingArchitecture:
    """Everything that has to be known, besides the weights, to compute what a network computes.

    Attributes:
        encoder: size of the encoder.
        features: channels in the decoder's fusion.
        out_channels: channels of the four maps that the decoder starts from, finest first.
        taps: the four encoder blocks (0 is the first, ascending) that these maps come from.
        max_depth_m: None: affine-invariant disparity. Otherwise depth in metres, 0 to this.
    """

    encoder: EncoderArchitecture
    features: int
    out_channels: tuple[int, int, int, int]
    taps: tuple[int, int, int, int]
    max_depth_m: float | None = None

    def __post_init__(self) -> None:
        """Refuse an architecture that cannot be built."""
        if len(self.taps) != 4 or list(self.taps) != sorted(set(self.taps)) or not 0 <= self.taps[0] <= self.taps[-1] < self.encoder.blocks:
            raise ValueError(f"taps {self.taps}: need four different blocks, ascending, from 0 to {self.encoder.blocks - 1}")
        if len(self.out_channels) != 4 or min(self.out_channels) < 1 or self.features < 2:
            raise ValueError(f"out_channels {self.out_channels}, features {self.features}: need four channel counts, and 2 features or more")
        if self.max_depth_m is not None and not 0 < self.max_depth_m < math.inf:
            raise ValueError(f"max_depth_m {self.max_depth_m}: needs a finite value above 0, or None for relative output")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DepthAnythingArchitecture:
        """Build from what `to_dict` returned, also after a passage through JSON."""
        sequences = {key: tuple(values[key]) for key in ("out_channels", "taps")}
        return cls(**{**values, **sequences, "encoder": EncoderArchitecture(**values["encoder"])})


DECODERS: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "vits": (64, (48, 96, 192, 384)),
    "vitb": (128, (96, 192, 384, 768)),
    "vitl": (256, (256, 512, 1024, 1024)),
    "vitg": (384, (1536, 1536, 1536, 1536)),
}
"""Features and out_channels of the published networks, by encoder."""
TAPS: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "v1": {"vits": (8, 9, 10, 11), "vitb": (8, 9, 10, 11), "vitl": (20, 21, 22, 23)},
    "v2": {"vits": (2, 5, 8, 11), "vitb": (2, 5, 8, 11), "vitl": (4, 11, 17, 23), "vitg": (9, 19, 29, 39)},
}
"""Blocks that the published networks read, by version and encoder."""


def published_architecture(encoder: str, version: str, max_depth_m: float | None = None) -> DepthAnythingArchitecture:
    """Return the architecture of a published network.

    Args:
        encoder: `vits`, `vitb`, `vitl` or `vitg`.
        version: `v1` or `v2`.
        max_depth_m: None for relative networks; 20 (indoor) or 80 (outdoor) for the metric ones of V2.

    Raises:
        ValueError: there is no such network.
    """
    if encoder not in TAPS.get(version, {}):
        known = ", ".join(f"{v} {e}" for v, encoders in TAPS.items() for e in encoders)
        raise ValueError(f"no published network '{version} {encoder}'; there are: {known}")
    features, out_channels = DECODERS[encoder]
    return DepthAnythingArchitecture(ENCODERS[encoder], features, out_channels, TAPS[version][encoder], max_depth_m)


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))). Source: RefineNet (Lin et al. 2017, arXiv:1611.06612), section 3.2."""

    def __init__(self, channels: int) -> None:
        """Keep size and channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same."""
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))


class Fusion(nn.Module):
    """Add a finer map to the coarse one, refine, and resize. The coarsest level has nothing to add: its `resConfUnit1` gets no gradient."""

    def __init__(self, channels: int) -> None:
        """Keep the channels."""
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)

    def forward(self, coarse: Tensor, skip: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
        """(N, C, h, w), and a skip connection of the same shape -> (N, C, *size_hw)."""
        merged = coarse if skip is None else coarse + self.resConfUnit1(skip)
        return self.out_conv(resize(self.resConfUnit2(merged), size_hw))


class Scratch(nn.Module):
    """The part of the head that DPT trains from scratch; a holder of layers, called by `DptHead`."""

    def __init__(self, out_channels: tuple[int, ...], features: int) -> None:
        """`layerK_rn` brings map K to `features` channels, `refinenetK` fuses it, `output_conv1` and `output_conv2` make the depth."""
        super().__init__()
        for level, channels in enumerate(out_channels, 1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(channels, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{level}", Fusion(features))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(nn.Conv2d(features // 2, HEAD_CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(HEAD_CHANNELS, 1, 1))


class DptHead(nn.Module):
    """DPT head.

    Shapes, for a grid of h x w patches:
        taps           4 x (N, h * w, dim)
        reassembled    (N, out_channels[k], s h, s w) with s = 4, 2, 1, 1/2 (rounded up)
        fused          (N, features, 8 h, 8 w), coarsest level first, doubling
        output         (N, 14 h, 14 w)
    """

    def __init__(self, architecture: DepthAnythingArchitecture) -> None:
        """Build with random weights."""
        super().__init__()
        finest, fine, _, coarsest = channels = architecture.out_channels
        self.max_depth_m = architecture.max_depth_m
        self.projects = nn.ModuleList(nn.Conv2d(architecture.encoder.dim, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(finest, finest, 4, 4),
                nn.ConvTranspose2d(fine, fine, 2, 2),
                nn.Identity(),
                nn.Conv2d(coarsest, coarsest, 3, 2, padding=1),
            ]
        )
        self.scratch = Scratch(channels, architecture.features)

    def forward(self, taps: tuple[Tensor, ...], grid_hw: tuple[int, int]) -> Tensor:
        """Decode tokens.

        Args:
            taps: four of (N, h * w, dim), normalised patch tokens, first block first.
            grid_hw: (h, w).

        Returns:
            (N, 14 h, 14 w): relative: disparity up to scale and shift, 0 and above; metric: depth in metres, 0 to `max_depth_m`.
        """
        return self.last(self.fused(taps, grid_hw))

    def fused(self, taps: tuple[Tensor, ...], grid_hw: tuple[int, int]) -> Tensor:
        """Decode up to the last convolutions, at the image's size: (N, features / 2, 14 h, 14 w)."""
        maps = [self._reassemble(level, tokens, grid_hw) for level, tokens in enumerate(taps)]
        x, skip = maps[3], None
        for level in (3, 2, 1, 0):
            size_hw = maps[level - 1].shape[-2:] if level else [2 * side for side in maps[0].shape[-2:]]
            x = self.scratch.get_submodule(f"refinenet{level + 1}")(x, skip, (size_hw[0], size_hw[1]))
            skip = maps[level - 1]
        return resize(self.scratch.output_conv1(x), (PATCH * grid_hw[0], PATCH * grid_hw[1]))

    def last(self, fused: Tensor) -> Tensor:
        """Make the output of what `fused` returned; half precision would leave it a few levels."""
        x = self.scratch.output_conv2(fused)[:, 0]
        return functional.relu(x) if self.max_depth_m is None else torch.sigmoid(x) * self.max_depth_m

    def _reassemble(self, level: int, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        x = tokens.transpose(1, 2).unflatten(2, grid_hw)
        return self.scratch.get_submodule(f"layer{level + 1}_rn")(self.resize_layers[level](self.projects[level](x)))


class DepthAnything(nn.Module):
    """The network. `pretrained` and `depth_head` can be called one after the other where the tokens are wanted too.

    Shapes:
        image                           (N, 3, H, W), H and W multiples of 14
        pretrained(image, taps)         4 x (N, H/14 * W/14, dim)
        depth_head(tokens, grid_hw)     (N, H, W)

    `pretrained.mask_token` and `depth_head.scratch.refinenet4.resConfUnit1` are in the published weights but get no
    gradient; distributed training has to be told (`find_unused_parameters=True`) or has to freeze them.
    """

    def __init__(self, architecture: DepthAnythingArchitecture) -> None:
        """Build with random weights."""
        super().__init__()
        self.architecture = architecture
        self.pretrained = Encoder(architecture.encoder)
        self.depth_head = DptHead(architecture)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB -> (N, H, W); see `DptHead.forward` for what it means, `Encoder.forward` for sizes."""
        return self.depth_head(self.pretrained(image, self.architecture.taps), patch_grid(image.shape[-2:]))


class ExportAttention(Attention):
    """Self-attention in plain operations; the exporter would guard scaled-dot-product attention against NaN, at two nodes per block."""

    def __init__(self, trained: Attention) -> None:
        """Take over the layers of `trained`, and change them: the scale 1 / sqrt(dim / heads) goes into the rows that make the query."""
        dim = trained.proj.in_features
        super().__init__(dim, trained.heads)
        self.qkv, self.proj = trained.qkv, trained.proj
        for parameter in (self.qkv.weight, self.qkv.bias):
            parameter[:dim] /= math.sqrt(dim // trained.heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) -> the same."""
        query, key, value = self.split(tokens)
        return self.merge(torch.softmax(query @ key.transpose(-1, -2), -1) @ value)


class ExportForm(nn.Module):
    """A trained network for one input size: positions baked, LayerScale and the attention's scale folded into their neighbours."""

    def __init__(self, model: DepthAnything, size_hw: tuple[int, int]) -> None:
        """Copy `model`, which stays as it is; `size_hw` is the input's height and width in pixels."""
        super().__init__()
        self.model = copy.deepcopy(model).to("cpu", torch.float32).requires_grad_(False)
        self.grid_hw = patch_grid(size_hw)
        encoder = self.model.pretrained
        positions = encoder.positions(self.grid_hw)
        self.register_buffer("class_token", encoder.cls_token + positions[:, :1])
        self.register_buffer("positions", positions[:, 1:].contiguous())
        for block in encoder.blocks:
            _fold_scale(block.attn.proj, block.ls1)
            _fold_scale(block.mlp.last, block.ls2)
            block.ls1, block.ls2 = nn.Identity(), nn.Identity()
            block.attn = ExportAttention(block.attn)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, *size_hw) normalised RGB -> (N, *size_hw), what the trained network returns."""
        encoder = self.model.pretrained
        patches = encoder.patch_embed(image) + self.positions
        tokens = torch.cat([self.class_token.expand(image.shape[0], -1, -1), patches], 1)
        return self.model.depth_head(run_blocks(encoder, tokens, self.model.architecture.taps), self.grid_hw)


def onnx_from_model(model: DepthAnything, size_hw: tuple[int, int]) -> bytes:
    """Return the ONNX file, without a contract, for one image of `size_hw` pixels; needs onnx and onnxscript.

    Input `image` (1, 3, *size_hw) float32 normalised RGB; output `depth` (1, *size_hw) float32. Opset 18 is the first that the
    exporter writes natively, and keeps LayerNormalization as one operator. Networks above 2 GB (ViT-G) do not fit into one file.
    """
    form = ExportForm(model, size_hw)
    image = torch.zeros(1, 3, *size_hw)
    program = torch.onnx.export(form, (image,), opset_version=EXPORT_OPSET, input_names=["image"], output_names=["depth"], dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


def resize(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) bilinearly with corners aligned, as DPT does everywhere."""
    return functional.interpolate(x, size=size_hw, mode="bilinear", align_corners=True)


def _fold_scale(layer: nn.Linear, scale: LayerScale) -> None:
    layer.weight.mul_(scale.gamma[:, None])
    layer.bias.mul_(scale.gamma)
