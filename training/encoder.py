"""The DINOv2 vision transformer, patch 14: image -> normalised patch tokens of chosen blocks, with the official parameter names.

Source: DINOv2 (Oquab et al. 2023, arXiv:2304.07193) on top of ViT (Dosovitskiy et al. 2021, arXiv:2010.11929). Weights that
were trained by others load without renaming, so nothing here may be called differently or be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 14
"""Side of a patch in pixels; both sides of an image are multiples of it."""
POSITION_GRID = 37
"""Patches per side for which positions are stored: 518 pixels."""
POSITION_OFFSET = 0.1
"""Patches that DINOv2 adds to the wanted size when it resizes positions, so that rounding never loses one."""
MLP_RATIO = 4
NORM_EPS = 1e-6


@dataclass(frozen=True)
class EncoderArchitecture:
    """Size of an encoder.

    Attributes:
        dim: length of a token; a multiple of `heads`.
        heads: attention heads per block.
        blocks: transformer blocks.
        swiglu: gated feed-forward layers (ViT-G) instead of an MLP with GELU.
    """

    dim: int
    heads: int
    blocks: int
    swiglu: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that fit no network."""
        if min(self.dim, self.heads, self.blocks) < 1 or self.dim % self.heads:
            raise ValueError(f"dim {self.dim}, heads {self.heads}, blocks {self.blocks}: need values above 0, dim a multiple of heads")


ENCODERS = {
    "vits": EncoderArchitecture(dim=384, heads=6, blocks=12),
    "vitb": EncoderArchitecture(dim=768, heads=12, blocks=12),
    "vitl": EncoderArchitecture(dim=1024, heads=16, blocks=24),
    "vitg": EncoderArchitecture(dim=1536, heads=24, blocks=40, swiglu=True),
}
"""The encoders that DINOv2 published, by the names that Depth Anything gives them."""


class PatchEmbedding(nn.Module):
    """Cut the image into patches; each becomes a token."""

    def __init__(self, dim: int) -> None:
        """One convolution with stride and kernel of a patch."""
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, 14 h, 14 w) -> (N, h * w, dim), row by row."""
        return self.proj(image).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention. Source: ViT, appendix A, equations 5 to 8."""

    def __init__(self, dim: int, heads: int) -> None:
        """Query, key and value come from one projection; their rows follow each other in its weight."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) -> the same."""
        query, key, value = self.split(tokens)
        return self.merge(functional.scaled_dot_product_attention(query, key, value))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, T, dim) -> query, key and value, each (N, heads, T, dim / heads)."""
        count, length, dim = tokens.shape
        query, key, value = self.qkv(tokens).reshape(count, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def merge(self, mixed: Tensor) -> Tensor:
        """(N, heads, T, dim / heads) -> (N, T, dim)."""
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Widen, GELU (exact), narrow."""

    def __init__(self, dim: int) -> None:
        """Four times as wide inside."""
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    @property
    def last(self) -> nn.Linear:
        """The layer that makes the output."""
        return self.fc2

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) -> the same."""
        return self.fc2(self.act(self.fc1(tokens)))


class SwiGlu(nn.Module):
    """Gated feed-forward layer: w3(silu(a) * b), (a, b) = w12(x). Source: Shazeer 2020, arXiv:2002.05202, section 2."""

    def __init__(self, dim: int) -> None:
        """Two thirds of the MLP's width, rounded up to a multiple of 8, so that both have as many parameters."""
        super().__init__()
        width = -(-(MLP_RATIO * dim * 2 // 3) // 8) * 8
        self.w12 = nn.Linear(dim, 2 * width)
        self.w3 = nn.Linear(width, dim)

    @property
    def last(self) -> nn.Linear:
        """The layer that makes the output."""
        return self.w3

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) -> the same."""
        gate, value = self.w12(tokens).chunk(2, -1)
        return self.w3(functional.silu(gate) * value)


class LayerScale(nn.Module):
    """A factor per channel before a residual is added. Source: CaiT (Touvron et al. 2021, arXiv:2103.17239), section 2."""

    def __init__(self, dim: int) -> None:
        """Start as the identity."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) -> the same."""
        return tokens * self.gamma


class Block(nn.Module):
    """Pre-norm transformer layer with LayerScale. Source: ViT, equations 2 and 3."""

    def __init__(self, architecture: EncoderArchitecture) -> None:
        """Build one of the encoder's blocks."""
        super().__init__()
        dim = architecture.dim
        self.norm1 = nn.LayerNorm(dim, NORM_EPS)
        self.attn = Attention(dim, architecture.heads)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, NORM_EPS)
        self.mlp = SwiGlu(dim) if architecture.swiglu else Mlp(dim)
        self.ls2 = LayerScale(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) -> the same."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class Encoder(nn.Module):
    """DINOv2 encoder.

    Shapes, for an image of (N, 3, 14 h, 14 w):
        patch_embed    (N, h * w, dim)
        + class token  (N, 1 + h * w, dim), positions added
        blocks         (N, 1 + h * w, dim) each
        output         one (N, h * w, dim) per tap: after the final norm, class token dropped
    """

    def __init__(self, architecture: EncoderArchitecture) -> None:
        """Build with DINOv2's random initialisation. `mask_token` is only there because published weights hold it: no gradient."""
        super().__init__()
        dim = architecture.dim
        self.architecture = architecture
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + POSITION_GRID**2, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        self.patch_embed = PatchEmbedding(dim)
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.blocks))
        self.norm = nn.LayerNorm(dim, NORM_EPS)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, taps: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            image: (N, 3, 14 h, 14 w) normalised RGB.
            taps: blocks (0 is the first) whose tokens are returned.

        Returns:
            For each tap, in ascending order, (N, h * w, dim) patch tokens after the final norm, row by row.

        Raises:
            ValueError: a side of the image is no multiple of 14.
        """
        grid_hw = patch_grid(image.shape[-2:])
        tokens = torch.cat([self.cls_token.expand(image.shape[0], -1, -1), self.patch_embed(image)], 1)
        return run_blocks(self, tokens + self.positions(grid_hw), taps)

    def positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return the position embedding of a grid of patches, (1, 1 + h * w, dim); the class token's comes first.

        The published weights were made with bicubic resampling by the factor (size + 0.1) / 37, which puts the samples
        elsewhere than resampling to `size` does; at 37 x 37 nothing is resampled. Source: `interpolate_pos_encoding` of DINOv2.
        """
        if grid_hw == (POSITION_GRID, POSITION_GRID):
            return self.pos_embed
        dim = self.pos_embed.shape[-1]
        stored = self.pos_embed[:, 1:].reshape(1, POSITION_GRID, POSITION_GRID, dim).permute(0, 3, 1, 2)
        factors = [(side + POSITION_OFFSET) / POSITION_GRID for side in grid_hw]
        resized = functional.interpolate(stored.float(), scale_factor=factors, mode="bicubic", align_corners=False)
        patches = resized.permute(0, 2, 3, 1).reshape(1, -1, dim).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], 1)


def patch_grid(size_hw: Sequence[int]) -> tuple[int, int]:
    """Return height and width in patches of an image of `size_hw` pixels.

    Raises:
        ValueError: a side is no multiple of 14.
    """
    height, width = size_hw
    if min(height, width) < PATCH or height % PATCH or width % PATCH:
        raise ValueError(f"image of {height} x {width} pixels: both sides must be multiples of {PATCH}; resize or crop it first")
    return height // PATCH, width // PATCH


def run_blocks(encoder: Encoder, tokens: Tensor, taps: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Send (N, 1 + P, dim) tokens through the blocks; return the normalised (N, P, dim) patch tokens of the tapped ones."""
    tapped = []
    for index, block in enumerate(encoder.blocks):
        tokens = block(tokens)
        if index in taps:
            tapped.append(encoder.norm(tokens)[:, 1:])
    return tuple(tapped)
