"""The compact student: image -> canonical metric depth, small enough to ship and fast on a CPU.

Convolutions down to 1/32, self-attention there (every place sees the whole image: layout and horizon decide scale), and
a light decoder with skip connections. It is no Depth Anything network; it stands in where that is too slow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_DEPTH_M, MAX_DEPTH_M = 0.1, 200.0
"""Range of the canonical depth that the network can say."""
SIZE_MULTIPLE = 32
ENCODER_PARTS = ("stem.", "down4.", "down8.", "down16.", "down32.", "context.")
"""Beginnings of the names of the encoder's parameters."""


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        """Padding keeps the size at stride 1."""
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two full convolutions and a sum. Source: ResNet (He et al. 2016, arXiv:1512.03385), figure 5, left.

    A CPU trains them nearly three times as fast, per operation, as depthwise convolutions in bfloat16.
    """

    def __init__(self, channels: int) -> None:
        """Keep size and channels."""
        super().__init__()
        self.layers = nn.Sequential(ConvBlock(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same."""
        return functional.relu(x + self.layers(x))


class AttentionBlock(nn.Module):
    """Pre-norm transformer layer over all places. Source: ViT (Dosovitskiy et al. 2021, arXiv:2010.11929), equations 2 and 3."""

    def __init__(self, channels: int, heads: int = 4, expansion: int = 2) -> None:
        """Channels must be a multiple of heads."""
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, expansion * channels), nn.ReLU(), nn.Linear(expansion * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, places, C) -> the same."""
        count, places, channels = tokens.shape
        mixed = self.query_key_value(self.norm_attention(tokens)).reshape(count, places, 3, self.heads, channels // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(channels // self.heads), -1)
        tokens = tokens + self.project((weights @ value).transpose(1, 2).reshape(count, places, channels))
        return tokens + self.mlp(self.norm_mlp(tokens))


class GlobalContext(nn.Module):
    """Attention over the coarsest feature map; each place knows where in the image it is."""

    def __init__(self, channels: int, layers: int) -> None:
        """Build `layers` attention blocks."""
        super().__init__()
        self.position = nn.Conv2d(4, channels, 1)
        self.blocks = nn.ModuleList(AttentionBlock(channels) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same."""
        height, width = x.shape[-2:]
        rows = (torch.arange(height, dtype=x.dtype, device=x.device) + 0.5) / height * 2 - 1
        # columns are measured in image heights, so that a wide image is not a stretched one
        columns = ((torch.arange(width, dtype=x.dtype, device=x.device) + 0.5) * 2 - width) / height
        y, x_ = rows.reshape(1, 1, -1, 1).expand(1, 1, height, width), columns.reshape(1, 1, 1, -1).expand(1, 1, height, width)
        x = x + self.position(torch.cat([y, y * y, x_, x_ * x_], 1))
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


class CompactStudent(nn.Module):
    """Fully convolutional encoder-decoder with attention at 1/32; sides must be multiples of `SIZE_MULTIPLE`."""

    def __init__(
        self,
        channels: tuple[int, int, int, int, int] = (16, 32, 64, 128, 160),
        blocks: tuple[int, int, int] = (1, 2, 3),
        context_layers: int = 3,
        decoder: int = 48,
    ) -> None:
        """Build with random weights.

        Args:
            channels: at 1/2, 1/4, 1/8, 1/16, 1/32 of the input's size.
            blocks: residual blocks at 1/4, 1/8, 1/16.
            context_layers: attention blocks at 1/32.
            decoder: channels of the decoder.
        """
        super().__init__()
        c2, c4, c8, c16, c32 = channels
        self.stem = ConvBlock(3, c2, 3, 2)
        self.down4 = nn.Sequential(ConvBlock(c2, c4, 3, 2), *[Residual(c4) for _ in range(blocks[0])])
        self.down8 = nn.Sequential(ConvBlock(c4, c8, 3, 2), *[Residual(c8) for _ in range(blocks[1])])
        self.down16 = nn.Sequential(ConvBlock(c8, c16, 3, 2), *[Residual(c16) for _ in range(blocks[2])])
        self.down32 = nn.Sequential(ConvBlock(c16, c16, 3, 2, groups=c16), ConvBlock(c16, c32, 1))
        self.context = GlobalContext(c32, context_layers)
        self.lateral = nn.ModuleList(nn.Conv2d(c, decoder, 1) for c in (c4, c8, c16, c32))
        self.fuse = nn.ModuleList(ConvBlock(decoder, decoder) for _ in range(3))
        self.head = nn.Conv2d(decoder, 4, 3, padding=1)
        nn.init.constant_(self.head.bias, math.log(3.0))
        nn.init.normal_(self.head.weight, std=0.01)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 3, h, w) normalised RGB -> maps at 1/4, 1/8, 1/16 and, with the whole image in view, 1/32 of its size."""
        quarter = self.down4(self.stem(image))
        eighth = self.down8(quarter)
        sixteenth = self.down16(eighth)
        return quarter, eighth, sixteenth, self.context(self.down32(sixteenth))

    def fused(self, features: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Decode what `features` returned up to the head: (N, C, h / 4, w / 4)."""
        quarter, eighth, sixteenth, coarse = features
        x = self.lateral[3](coarse)
        for level, skip in ((2, sixteenth), (1, eighth), (0, quarter)):
            x = self.fuse[level](_double(x) + self.lateral[level](skip))
        return x

    def last(self, fused: Tensor) -> Tensor:
        """Predict from what `fused` returned; half precision would leave the output a few levels.

        Returns:
            (N, h, w) log metres of the canonical camera, unbounded; the training losses need gradients outside the range.
        """
        return _double(functional.pixel_shuffle(self.head(fused), 2))[:, 0]

    def log_depth(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) normalised RGB -> (N, h, w) log metres; see `last`."""
        return self.last(self.fused(self.features(image)))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) normalised RGB -> (N, h, w) metres of depth as the canonical camera sees it, within the range."""
        return torch.exp(torch.clamp(self.log_depth(image), math.log(MIN_DEPTH_M), math.log(MAX_DEPTH_M)))


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
