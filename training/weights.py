"""Published weights -> networks: official `.pth` files, DINOv2 hub `.pth` files, and Hugging Face safetensors.

One table relates the official parameter names to the two layouts of the transformers library: version 4's, which is what
files hold to this day, and version 5's, which its models use in memory. A weight file says neither which blocks the head
reads nor whether the output is metric, so both come from the file's name, from `config.json`, or from the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .depth_anything import DepthAnything, DepthAnythingArchitecture, published_architecture
from .encoder import Encoder, EncoderArchitecture

LAYOUTS = ("v4", "v5")
"""Of Hugging Face files: on disk, and in the memory of transformers 5."""
METRIC_RANGES_M = {"hypersim": 20.0, "vkitti": 80.0}
"""max_depth_m of the metric networks of V2, by the data set in the file's name."""
HOW_TO_TELL = (
    "V1 and V2, relative and metric files hold the same names and shapes; "
    "pass architecture=published_architecture(ENCODER, 'v1' or 'v2', max_depth_m=None or 20 or 80)"
)
_FILE_NAMES = (
    re.compile(r"depth_anything_(?P<encoder>vit[sbl])14\.pth"),
    re.compile(r"depth_anything_(?P<version>v2)_(?P<encoder>vit[sblg])\.pth"),
    re.compile(r"depth_anything_(?P<version>v2)_metric_(?P<data>hypersim|vkitti)_(?P<encoder>vit[sbl])\.pth"),
)
_ENCODER_PREFIX = "pretrained."
_SHOWN = 4
Row = TypeVar("Row")


class WeightsError(ValueError):
    """A weight file cannot be read, is of another network, or leaves open what its network computes."""


@dataclass(frozen=True)
class Rename:
    """One module's or parameter's names; `{i}` is a block's number. Several names: rows of one tensor, one after the other."""

    official: str
    v4: tuple[str, ...]
    v5: tuple[str, ...]


def _block(official: str, v4: str, v5: str | None = None) -> Rename:
    """Return a row of the table for something in a transformer block; names are separated by spaces."""
    in_layer = [tuple(f"backbone.encoder.layer.{{i}}.{name}" for name in names.split()) for names in (v4, v5 or v4)]
    return Rename(f"pretrained.blocks.{{i}}.{official}", *in_layer)


def _same(official: str, name: str) -> Rename:
    """Return a row of the table for something with one name in both layouts."""
    return Rename(official, (name,), (name,))


RENAMES: tuple[Rename, ...] = (
    _same("pretrained.cls_token", "backbone.embeddings.cls_token"),
    _same("pretrained.mask_token", "backbone.embeddings.mask_token"),
    _same("pretrained.pos_embed", "backbone.embeddings.position_embeddings"),
    _same("pretrained.patch_embed.proj", "backbone.embeddings.patch_embeddings.projection"),
    _same("pretrained.norm", "backbone.layernorm"),
    _block(
        "attn.qkv",
        "attention.attention.query attention.attention.key attention.attention.value",
        "attention.q_proj attention.k_proj attention.v_proj",
    ),
    _block("attn.proj", "attention.output.dense", "attention.o_proj"),
    _block("mlp.w12", "mlp.weights_in", "mlp.gate_proj mlp.up_proj"),
    _block("mlp.w3", "mlp.weights_out", "mlp.down_proj"),
    *[_block(f"ls{k}.gamma", f"layer_scale{k}.lambda1") for k in (1, 2)],
    *[_block(name, name) for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")],
    *[_same(f"depth_head.projects.{k}", f"neck.reassemble_stage.layers.{k}.projection") for k in range(4)],
    *[_same(f"depth_head.resize_layers.{k}", f"neck.reassemble_stage.layers.{k}.resize") for k in (0, 1, 3)],
    *[_same(f"depth_head.scratch.layer{k + 1}_rn", f"neck.convs.{k}") for k in range(4)],
    *[_same(f"depth_head.scratch.refinenet{n}.out_conv", f"neck.fusion_stage.layers.{4 - n}.projection") for n in range(1, 5)],
    *[
        _same(
            f"depth_head.scratch.refinenet{n}.resConfUnit{u}.conv{c}",
            f"neck.fusion_stage.layers.{4 - n}.residual_layer{u}.convolution{c}",
        )
        for n in range(1, 5)
        for u in (1, 2)
        for c in (1, 2)
    ],
    _same("depth_head.scratch.output_conv1", "head.conv1"),
    _same("depth_head.scratch.output_conv2.0", "head.conv2"),
    _same("depth_head.scratch.output_conv2.2", "head.conv3"),
)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{i\}", r"(?P<i>\d+)") + r"(?P<suffix>\.weight|\.bias)?")


_FROM_OFFICIAL = [(_pattern(row.official), row) for row in RENAMES]
_TO_OFFICIAL = [
    (_pattern(name), (row.official, part, len(names)))
    for row in RENAMES
    for names in dict.fromkeys((row.v4, row.v5))
    for part, name in enumerate(names)
]


def _find(table: Iterable[tuple[re.Pattern[str], Row]], name: str) -> tuple[re.Match[str], Row] | None:
    return next(((match, row) for pattern, row in table if (match := pattern.fullmatch(name))), None)


def _full_name(template: str, match: re.Match[str]) -> str:
    return template.replace("{i}", match.groupdict().get("i") or "") + (match["suffix"] or "")


def official_from_huggingface(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a transformers model, in either layout; rows that belong together are joined.

    Raises:
        WeightsError: a name is not one of Depth Anything's, or a part of a joined tensor is missing.
    """
    found: dict[str, dict[int, Tensor]] = {}
    parts: dict[str, int] = {}
    unknown = []
    for name, tensor in tensors.items():
        hit = _find(_TO_OFFICIAL, name)
        if hit is None:
            unknown.append(name)
            continue
        match, (template, part, count) = hit
        official = _full_name(template, match)
        found.setdefault(official, {})[part] = tensor
        parts[official] = count
    incomplete = [name for name, pieces in found.items() if len(pieces) != parts[name]]
    if unknown or incomplete:
        raise WeightsError(_differences(incomplete, unknown))
    return {name: torch.cat([piece for _, piece in sorted(pieces.items())]) for name, pieces in found.items()}


def huggingface_from_official(tensors: Mapping[str, Tensor], layout: str = "v4") -> dict[str, Tensor]:
    """Rename tensors to what transformers expects: `v4` in files, `v5` for `load_state_dict` of its version 5.

    Raises:
        WeightsError: a name is not one of Depth Anything's, or there is no such layout.
    """
    if layout not in LAYOUTS:
        raise WeightsError(f"no layout '{layout}'; there are: {', '.join(LAYOUTS)}")
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        hit = _find(_FROM_OFFICIAL, name)
        if hit is None:
            raise WeightsError(_differences([], [name]))
        match, row = hit
        templates = row.v4 if layout == "v4" else row.v5
        renamed |= {_full_name(template, match): piece for template, piece in zip(templates, tensor.chunk(len(templates)))}
    return renamed


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a weight file.

    Args:
        path: `.safetensors` (transformers' names) or `.pth` (official names; pickled code in it is refused).

    Returns:
        float32 tensors by official name, on the CPU.

    Raises:
        WeightsError: there is no such file, or it is no weight file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f"no weight file '{path}'; download it first, and give the path of the file itself")
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes run as other steps of the unpickler: KeyError, IndexError, AssertionError, struct.error, ...
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"'{path}' is no weight file, or is truncated ({reason}); download it again") from error
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise WeightsError(f"'{path}' holds no tensors by name; save only the network's state_dict()")
    try:
        official = official_from_huggingface(tensors) if path.suffix == ".safetensors" else tensors
    except WeightsError as error:
        raise WeightsError(f"'{path}': {error}") from error
    return {name: tensor.float() for name, tensor in official.items()}


def architecture_of_file(path: str | Path) -> DepthAnythingArchitecture:
    """Return the architecture that the official file name, or for safetensors the `config.json` beside it, states.

    Raises:
        WeightsError: they state none; nothing is guessed.
    """
    path = Path(path).expanduser()
    if path.suffix == ".safetensors":
        return _architecture_of_config(path.with_name("config.json"))
    match = next((m for pattern in _FILE_NAMES if (m := pattern.fullmatch(path.name))), None)
    if match is None:
        raise WeightsError(f"the name of '{path}' is not an official one, so it does not say which network this is; {HOW_TO_TELL}")
    named = match.groupdict()
    data = named.get("data")
    return published_architecture(named["encoder"], named.get("version", "v1"), METRIC_RANGES_M[data] if data else None)


def _architecture_of_config(path: Path) -> DepthAnythingArchitecture:
    """Read transformers' configuration; what it leaves out is at the defaults of its `DepthAnythingConfig` and `Dinov2Config`."""
    if not path.is_file():
        raise WeightsError(f"no '{path}' beside the weights; download it too. {HOW_TO_TELL}")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        backbone = config["backbone_config"]
        dim, heads, blocks = (backbone.get(*x) for x in (("hidden_size", 768), ("num_attention_heads", 12), ("num_hidden_layers", 12)))
        kind = config.get("depth_estimation_type", "relative")
        if kind not in ("relative", "metric"):
            raise ValueError(f"depth_estimation_type '{kind}' is not relative or metric")
        return DepthAnythingArchitecture(
            EncoderArchitecture(dim, heads, blocks, backbone.get("use_swiglu_ffn", False)),
            config.get("fusion_hidden_size", 64),
            tuple(config.get("neck_hidden_sizes", (48, 96, 192, 384))),
            tuple(index - 1 for index in backbone["out_indices"]),  # 0 is the state before the first block
            float(config["max_depth"]) if kind == "metric" else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"'{path}' does not describe a Depth Anything network ({error!r}). {HOW_TO_TELL}") from error


def load_depth_anything(path: str | Path, architecture: DepthAnythingArchitecture | None = None) -> DepthAnything:
    """Build the network of a weight file.

    Args:
        path: see `read_weights`.
        architecture: None: as `architecture_of_file` says.

    Raises:
        WeightsError: the file cannot be read, does not fit, or leaves the architecture open.
    """
    tensors = read_weights(path)
    architecture = architecture or architecture_of_file(path)
    with torch.device("meta"):
        model = DepthAnything(architecture)
    _load(model, tensors, path)
    return model


def load_encoder(encoder: Encoder, path: str | Path) -> None:
    """Load an encoder in place: from a DINOv2 hub file, or the encoder of a Depth Anything file.

    Raises:
        WeightsError: the file cannot be read or does not fit.
    """
    tensors = read_weights(path)
    if any(name.startswith(_ENCODER_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_ENCODER_PREFIX): t for name, t in tensors.items() if name.startswith(_ENCODER_PREFIX)}
    _load(encoder, tensors, path, assign=False)


def _load(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, assign: bool = True) -> None:
    """Load all tensors; each must be wanted and of the right shape."""
    wanted = model.state_dict()
    missing, unexpected = [name for name in wanted if name not in tensors], [name for name in tensors if name not in wanted]
    if missing or unexpected:
        raise WeightsError(f"'{path}': {_differences(missing, unexpected)}")
    wrong = [name for name in wanted if wanted[name].shape != tensors[name].shape]
    if wrong:
        shapes = f"{wrong[0]} is {tuple(tensors[wrong[0]].shape)}, the network's {tuple(wanted[wrong[0]].shape)}"
        raise WeightsError(f"'{path}': {len(wrong)} tensors of another shape ({shapes}); pass the architecture of this file")
    model.load_state_dict(tensors, strict=True, assign=assign)


def _differences(missing: Iterable[str], unexpected: Iterable[str]) -> str:
    parts = list(_shortened("missing", list(missing))) + list(_shortened("unexpected", list(unexpected)))
    return f"not the weights of this network: {'; '.join(parts)}; check that file and architecture belong together"


def _shortened(label: str, names: list[str]) -> Iterator[str]:
    if names:
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"{len(names)} {label} ({', '.join(names[:_SHOWN])}{more})"
