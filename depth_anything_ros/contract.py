"""What a model file says about itself: input, output kind and unit, origin. Stored in, and read from, the ONNX metadata.

Only the envelope of the file is read (protobuf fields of `ModelProto`), so neither onnx nor an inference engine is
needed to find out that a file is truncated, is not ONNX, or does not say what its numbers mean.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from .errors import ContractError
from .structs import OutputKind

METADATA_KEY = "depth_anything_ros.contract"
GOLDEN_KEY = "depth_anything_ros.golden"
"""Beside the contract: an image and what the model makes of it, see `self_check`."""
CONTRACT_VERSION = 1
DEFAULT_MODEL = Path(__file__).parent / "models" / "student_metric.onnx"
"""The model inside the package."""
RESIZE_RULES = ("lower_bound", "stretch", "letterbox")
INTERPOLATIONS = ("linear", "cubic")
HOW_TO_ADD = "add one with: python3 -m depth_anything_ros.contract MODEL.onnx CONTRACT.json OUT.onnx"

_MODEL_PROTO_GRAPH = 7
_MODEL_PROTO_METADATA = 14
_WIRE_VARINT, _WIRE_64, _WIRE_BYTES, _WIRE_32 = 0, 1, 2, 5


@dataclass(frozen=True)
class ModelContract:
    """Meaning of a model's input and output.

    Attributes:
        name: short name for logs and diagnostics.
        input_sizes_hw: allowed input sizes (height, width) in pixels. `stretch` and `letterbox` take the one of the nearest
            aspect ratio; `lower_bound` takes the first as the lower bound of both sides and needs free spatial axes.
        resize: `lower_bound` (aspect kept, sides rounded to `size_multiple`), `stretch` or `letterbox`.
        interpolation: `linear` or `cubic`, both with half-pixel centres and without antialiasing, as OpenCV does it.
        output_kind: `disparity_affine_invariant`, `depth_m`, or `depth_canonical_focal`: metres as a camera with
            `canonical_focal_px` would have seen them; true depth = output * focal length in network pixels / canonical.
        mean, std: per channel, of pixel values scaled to 0..1, in `channel_order`.
        channel_order: `rgb` or `bgr`.
        size_multiple: both sides of the network's input are multiples of this number of pixels (`lower_bound`).
        canonical_focal_px: focal length in network pixels of a `depth_canonical_focal` model, otherwise None.
        max_depth_m: metric models: larger depths are reported as +Inf (beyond range). None: no limit.
        licence: SPDX name of the weights' licence.
        training: free-form record of how the model was made.
    """

    name: str
    input_sizes_hw: tuple[tuple[int, int], ...]
    resize: str
    output_kind: OutputKind
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channel_order: str = "rgb"
    size_multiple: int = 1
    interpolation: str = "linear"
    canonical_focal_px: float | None = None
    max_depth_m: float | None = None
    licence: str = "unknown"
    training: dict[str, Any] = field(default_factory=dict)
    contract_version: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        """Refuse a contract that contradicts itself."""
        problem = next(self._problems(), None)
        if problem:
            raise ContractError(f"model contract of '{self.name}': {problem}")

    def _problems(self) -> Iterator[str]:
        if self.contract_version != CONTRACT_VERSION:
            yield f"contract_version {self.contract_version} is not {CONTRACT_VERSION}; use a matching depth_anything_ros"
        if self.output_kind not in get_args(OutputKind):
            yield f"output_kind '{self.output_kind}' is not one of {', '.join(get_args(OutputKind))}"
        if self.resize not in RESIZE_RULES:
            yield f"resize '{self.resize}' is not one of {', '.join(RESIZE_RULES)}"
        if self.interpolation not in INTERPOLATIONS:
            yield f"interpolation '{self.interpolation}' is not one of {', '.join(INTERPOLATIONS)}"
        if self.channel_order not in ("rgb", "bgr"):
            yield f"channel_order '{self.channel_order}' is not rgb or bgr"
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0:
            yield "mean and std need three finite values each, std above 0"
        if not self.input_sizes_hw or any(len(size) != 2 or min(size) < 1 for size in self.input_sizes_hw):
            yield f"input_sizes_hw {self.input_sizes_hw} needs at least one (height, width) of positive pixels"
        if self.size_multiple < 1:
            yield f"size_multiple {self.size_multiple} is below 1"
        if self.output_kind == "depth_canonical_focal" and not (self.canonical_focal_px or 0) > 0:
            yield "depth_canonical_focal needs canonical_focal_px above 0"
        if self.max_depth_m is not None and not self.max_depth_m > 0:
            yield f"max_depth_m {self.max_depth_m} is not above 0"

    @property
    def is_metric(self) -> bool:
        """Whether the output becomes metres without any reference."""
        return self.output_kind != "disparity_affine_invariant"

    def to_json(self) -> str:
        """Return the contract as one JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Parse and validate a contract.

        Raises:
            ContractError: not JSON, unknown or missing keys, values of the wrong type or range.
        """
        try:
            values = json.loads(text)
            unknown = set(values) - {f.name for f in fields(cls)}
            if unknown:
                raise ContractError(f"model contract has unknown keys: {', '.join(sorted(unknown))}")
            for key in ("mean", "std"):
                if key in values:
                    values[key] = tuple(float(v) for v in values[key])
            values["input_sizes_hw"] = tuple((int(h), int(w)) for h, w in values["input_sizes_hw"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ContractError(f"model contract is not valid: {error!r}; see ModelContract for its keys") from error


@dataclass(frozen=True)
class ModelFile:
    """A model file that has been checked: where it is, what it is, the SHA-256 of its bytes (hex), and what `self_check` needs, or nothing."""

    path: Path
    contract: ModelContract
    sha256: str
    golden: str = ""


def read_model_file(path: str | Path) -> ModelFile:
    """Read and validate the contract inside an ONNX file.

    Raises:
        ContractError: the file is missing, truncated, not ONNX, or holds no valid contract.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ContractError(f"cannot read model file '{path}': {error.strerror}; set the parameter 'model'") from error
    entries = dict(_metadata_entries(content, path))
    if METADATA_KEY not in entries:
        raise ContractError(f"model file '{path}' has no contract ('{METADATA_KEY}' in its metadata); {HOW_TO_ADD}")
    try:
        contract = ModelContract.from_json(entries[METADATA_KEY])
    except ContractError as error:
        raise ContractError(f"model file '{path}': {error}") from error
    return ModelFile(path, contract, hashlib.sha256(content).hexdigest(), entries.get(GOLDEN_KEY, ""))


def with_contract(model: bytes, contract: ModelContract) -> bytes:
    """Return the bytes of an ONNX model with the contract in its metadata, in place of the one that it had.

    Raises:
        ContractError: these are not the bytes of an ONNX model.
    """
    return with_metadata(model, METADATA_KEY, contract.to_json())


def with_metadata(model: bytes, key: str, text: str) -> bytes:
    """Return the bytes of an ONNX model with a text in its metadata, in place of what it had under that key.

    Appending a field to a serialised protobuf message adds an element to a repeated field, so no ONNX library is needed.
    Source: protobuf encoding guide, merging by concatenation.

    Raises:
        ContractError: these are not the bytes of an ONNX model.
    """
    try:
        old = [
            (start, end)
            for number, value, start, end in _protobuf_spans(model)
            if number == _MODEL_PROTO_METADATA and isinstance(value, memoryview) and any(name == key for name in _entry_names(value))
        ]
    except ValueError as error:
        raise ContractError(f"the model is truncated or not ONNX ({error})") from error
    for start, end in reversed(old):
        model = model[:start] + model[end:]
    entry = _bytes_field(1, key.encode()) + _bytes_field(2, text.encode())
    return model + _bytes_field(_MODEL_PROTO_METADATA, entry)


def _entry_names(entry: memoryview) -> Iterator[str]:
    """Yield the key of a metadata entry."""
    yield from (bytes(text).decode(errors="replace") for number, text in _protobuf_fields(entry) if number == 1 and isinstance(text, memoryview))


def _metadata_entries(content: bytes, path: Path) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of `ModelProto.metadata_props`."""
    has_graph = False
    try:
        for number, value in _protobuf_fields(content):
            has_graph |= number == _MODEL_PROTO_GRAPH and isinstance(value, memoryview)
            if number == _MODEL_PROTO_METADATA and isinstance(value, memoryview):
                entry = {key: bytes(text).decode() for key, text in _protobuf_fields(value) if isinstance(text, memoryview)}
                yield entry.get(1, ""), entry.get(2, "")
    except (ValueError, UnicodeDecodeError) as error:
        raise ContractError(f"model file '{path}' is truncated or not ONNX ({error}); export or copy it again") from error
    if not has_graph:
        raise ContractError(f"model file '{path}' is not ONNX (it has no graph); export or copy it again")


def _protobuf_fields(buffer: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Walk the fields of one serialised protobuf message: (field number, integer or bytes)."""
    return ((number, value) for number, value, _, _ in _protobuf_spans(buffer))


def _protobuf_spans(buffer: bytes | memoryview) -> Iterator[tuple[int, int | memoryview, int, int]]:
    """Walk the fields of one serialised protobuf message: (field number, integer or bytes, where it starts and ends)."""
    view, at = memoryview(buffer), 0
    while at < len(view):
        start = at
        tag, at = _varint(view, at)
        wire = tag & 7
        if wire == _WIRE_VARINT:
            value, at = _varint(view, at)
            yield tag >> 3, value, start, at
            continue
        if wire == _WIRE_BYTES:
            length, at = _varint(view, at)
        elif wire in (_WIRE_64, _WIRE_32):
            length = 8 if wire == _WIRE_64 else 4
        else:
            raise ValueError(f"unexpected byte at {at}")
        if at + length > len(view):
            raise ValueError(f"a field of {length} bytes at {at} ends after the file's {len(view)} bytes")
        yield tag >> 3, view[at : at + length], start, at + length
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("the file ends inside a number")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at {at} is too long")


def _bytes_field(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | _WIRE_BYTES) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def main(argv: list[str] | None = None) -> int:
    """Command line: add a contract to an ONNX file."""
    parser = argparse.ArgumentParser(prog="python3 -m depth_anything_ros.contract", description="Add a contract to an ONNX model.")
    parser.add_argument("model", type=Path, help="ONNX file to read")
    parser.add_argument("contract", type=Path, help="JSON file with the keys of ModelContract")
    parser.add_argument("out", type=Path, help="ONNX file to write")
    args = parser.parse_args(argv)
    contract = ModelContract.from_json(args.contract.read_text())
    temporary = args.out.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(with_contract(args.model.read_bytes(), contract))
    temporary.replace(args.out)
    print(f"{args.out}: {read_model_file(args.out).contract.to_json()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
