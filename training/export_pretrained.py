"""Published Depth Anything weights -> ONNX file with its contract, checked against torch; nothing is trained.

`python -m training.export --pretrained` calls this. The weights come from a file, from a folder, or from the Hugging Face hub
where the package huggingface_hub is installed. Which licence they have follows from their official name, or is unknown.
"""

from __future__ import annotations

import json
import logging
import re
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from depth_anything_ros.contract import ModelContract, with_contract
from depth_anything_ros.errors import DepthAnythingError
from depth_anything_ros.postprocess import enlarge, map_from_raw
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import RgbFrame

from .checkpoint import sha256_of
from .contracts import pretrained_contract, published_licence
from .depth_anything import EXPORT_OPSET, TAPS, DepthAnything, DepthAnythingArchitecture, onnx_from_model, published_architecture
from .weights import HOW_TO_TELL, WeightsError, architecture_of_file, load_depth_anything

RANGE_TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and torch, as a part of the range of the output."""
HUB_TIMEOUT_S = 5.0
"""Seconds that the Hugging Face hub may take to answer."""
MAX_FILE_BYTES = 2**31
"""A protobuf message, which an ONNX file is, is smaller than this."""
PUBLISHED = {f"{version}-{encoder}": (encoder, version) for version, encoders in TAPS.items() for encoder in encoders}
"""What `--architecture` may name."""
HOW_TO_NAME = (
    "V1 and V2, relative and metric files hold the same names and shapes; "
    f"say which network it is: --architecture {', '.join(PUBLISHED)} or a JSON file, and --max-depth-m for a metric one"
)
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".onnx")
_HUB_FILES = ("config.json", "model.safetensors")
_OFFICIAL_FOLDER = re.compile(
    r"(models--(depth-anything|liheyoung)--)?depth-anything(?P<v2>-v2)?(?(v2)(-metric-(indoor|outdoor))?)-(?P<size>small|base|large)-hf", re.I
)
_ENCODER_OF_SIZE = {"small": "vits", "base": "vitb", "large": "vitl"}


class PretrainedError(ValueError):
    """These weights cannot become a model file; the message says what to do."""


def find_weights(name_or_file: str) -> Path:
    """Return the weight file that a user means.

    Args:
        name_or_file: a weight file, a folder with one, or a name on the Hugging Face hub (`owner/name`).

    Raises:
        PretrainedError: there is none, there are several, or the hub does not give it.
    """
    path = Path(name_or_file).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _weights_in(path)
    if _HUB_NAME.fullmatch(name_or_file) and not name_or_file.endswith(_HUB_ENDINGS):
        return _from_hub(name_or_file)
    raise PretrainedError(f"no file or folder '{path}'; download the weights first, and give the path of the file, or of the folder that holds it")


def _weights_in(folder: Path) -> Path:
    """Return `model.safetensors` of a folder, or else its only weight file."""
    found = sorted(path for path in folder.iterdir() if path.suffix in (".pth", ".safetensors"))
    whole = folder / "model.safetensors"
    if whole in found or len(found) == 1:
        return whole if whole in found else found[0]
    names = f"several weight files ({', '.join(path.name for path in found)})" if found else "no weight file (.safetensors or .pth)"
    raise PretrainedError(f"folder '{folder}' holds {names}; give the path of the file")


def _from_hub(name: str) -> Path:
    """Download the two files of a transformers model. The hub is asked once with a time limit; without an answer its cache has to do."""
    url = f"https://huggingface.co/{name}/tree/main"
    remedy = f"download {' and '.join(_HUB_FILES)} (or the .pth file) from {url} into one folder, and give that folder's path"
    no_folder = f"no file or folder '{name}', and as a name on the Hugging Face hub"
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise PretrainedError(f"{no_folder} it needs huggingface_hub (pip install huggingface_hub); or {remedy}") from None
    api, cached_only, refusal = HfApi(), False, ""
    try:
        api.model_info(name, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # errors of the hub, of its HTTP library, of the network
        cached_only, refusal = True, _first_line(error)
    try:
        paths = [api.hf_hub_download(name, file, etag_timeout=HUB_TIMEOUT_S, local_files_only=cached_only) for file in _HUB_FILES]
    except Exception as error:  # the same
        raise PretrainedError(f"{no_folder} it cannot be fetched ({refusal or _first_line(error)}); {remedy}") from error
    return Path(paths[-1])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def architecture_from_text(text: str, max_depth_m: float | None = None) -> DepthAnythingArchitecture:
    """Return the architecture that a user names.

    Args:
        text: a key of `PUBLISHED`, or the path of a JSON file with what `DepthAnythingArchitecture.to_dict` returns.
        max_depth_m: with a published name: None for relative networks, 20 (indoor) or 80 (outdoor) for the metric ones of V2.

    Raises:
        PretrainedError: neither, or values that fit no network.
    """
    try:
        if text in PUBLISHED:
            return published_architecture(*PUBLISHED[text], max_depth_m)
        if max_depth_m is not None:
            raise PretrainedError(f"--max-depth-m goes with the name of a published network ({', '.join(PUBLISHED)}); a JSON file states max_depth_m")
        return DepthAnythingArchitecture.from_dict(json.loads(Path(text).expanduser().read_text()))
    except PretrainedError:
        raise
    except OSError as error:
        known = ", ".join(PUBLISHED)
        raise PretrainedError(f"--architecture '{text}' is none of {known}, and no JSON file that can be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PretrainedError(f"--architecture '{text}' describes no network: {_first_line(error)}") from error


def model_name(path: Path) -> str:
    """Return a short name for a weight file: its own, or that of the model's folder where the file is called `model`."""
    return path.stem if path.stem != "model" else _folder_name(path).rpartition("--")[2] or path.stem


def _folder_name(path: Path) -> str:
    """Return the name of a file's folder; in the hub's cache (`models--OWNER--NAME/snapshots/HASH`) that of the model's."""
    folder = path.absolute().parent
    return folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name


def licence_of(path: Path, architecture: DepthAnythingArchitecture) -> str | None:
    """Return the licence (SPDX) of officially named weights of a published architecture; None: nothing says which it is."""
    if path.suffix == ".safetensors":
        match = _OFFICIAL_FOLDER.fullmatch(_folder_name(path))
        named = (_ENCODER_OF_SIZE[match["size"].lower()], "v2" if match["v2"] else "v1") if match else None
    else:
        named = _published(path)
    if named is None or published_architecture(*named, architecture.max_depth_m) != architecture:
        return None
    return published_licence(*named)


def _published(path: Path) -> tuple[str, str] | None:
    """Return encoder and version of an official `.pth` file's name; None: it is not official."""
    try:
        named = architecture_of_file(path)
    except WeightsError:
        return None
    return next(key for key in PUBLISHED.values() if published_architecture(*key, named.max_depth_m) == named)


def export_pretrained(
    path: Path,
    size_hw: tuple[int, int],
    resize: str = "stretch",
    architecture: DepthAnythingArchitecture | None = None,
    licence: str | None = None,
) -> tuple[bytes, ModelContract]:
    """Export a weight file, and check the result.

    Args:
        path: official `.pth`, or `.safetensors` with transformers' names.
        size_hw: height and width in pixels of the network's input, both multiples of 14.
        resize: how camera images are brought to that size: `stretch` or `letterbox`.
        architecture: for files where neither an official name nor a `config.json` beside them states it; None: it is stated.
        licence: SPDX name; None: as the official name says, else `unknown`.

    Returns:
        The bytes of the ONNX file with its contract, and the contract.

    Raises:
        WeightsError: the file cannot be read or does not fit the architecture.
        PretrainedError: the architecture is not stated, or another one is; the licence is another; the network is too large for
            one file; or the exported graph does not compute what torch does.
    """
    model = _load(path, _architecture(path, architecture)).eval().requires_grad_(False)
    published = licence_of(path, model.architecture)
    if licence and published and licence != published:
        raise PretrainedError(f"'{path}' is published under {published}, not {licence}; leave --licence away")
    if 4 * sum(parameter.numel() for parameter in model.parameters()) >= MAX_FILE_BYTES:
        raise PretrainedError(f"'{path}' makes more than 2 GB of float32, which one ONNX file cannot hold; take a smaller network")
    contract = pretrained_contract(model_name(path), model.architecture, size_hw, resize, licence or published or "unknown", {})
    graph = graph_of(model, size_hw)
    contract = replace(contract, training=_record(path, model.architecture, compare_with_torch(model, graph, contract)))
    content = with_contract(graph, contract)
    onnx.checker.check_model(content, full_check=True)
    return content, contract


def _architecture(path: Path, given: DepthAnythingArchitecture | None) -> DepthAnythingArchitecture:
    """Ask the file, then the user: where neither says what it is, or they contradict each other, nothing is guessed."""
    try:
        stated = architecture_of_file(path)
    except WeightsError as error:
        if given is None:
            raise PretrainedError(str(error).replace(HOW_TO_TELL, HOW_TO_NAME)) from error
        return given
    if given is not None and given != stated:
        raise PretrainedError(f"'{path}' says of itself that it is another network than --architecture and --max-depth-m do; leave them away")
    return stated


def _load(path: Path, architecture: DepthAnythingArchitecture) -> DepthAnything:
    try:
        return load_depth_anything(path, architecture)
    except (LookupError, TypeError, AttributeError, AssertionError, struct.error) as error:  # of the unpickler, on bytes that are no pickle
        raise PretrainedError(f"'{path}' is no weight file, or is truncated ({_first_line(error)}); download it again") from error


def graph_of(model: DepthAnything, size_hw: tuple[int, int]) -> bytes:
    """Call `onnx_from_model` without the exporter's remarks on torchvision, which no network here needs, and on its own deprecations.

    Raises:
        PretrainedError: onnxscript is missing.
    """
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return onnx_from_model(model, size_hw)
    except ImportError as error:
        raise PretrainedError(f"the exporter is not installed ({error}); get it with: pip install onnxscript") from error


def _record(path: Path, architecture: DepthAnythingArchitecture, difference: float) -> dict[str, Any]:
    """Return what the contract says about the model's origin; no paths."""
    import onnxscript

    versions = {module.__name__: str(module.__version__) for module in (torch, onnx, onnxscript, onnxruntime)}
    return {
        "source": {"file": path.name, "sha256": sha256_of(path)},
        "architecture": architecture.to_dict(),
        "versions": {**versions, "opset": EXPORT_OPSET},
        "difference_to_torch": float(f"{difference:.1e}"),
    }


def compare_with_torch(model: DepthAnything, graph: bytes, contract: ModelContract) -> float:
    """Run images through the runtime's stages 2 and 4 with ONNX Runtime between them, and compare what it gives with torch.

    Args:
        model: in evaluation mode, on the CPU.
        graph: the ONNX file that was made of it.
        contract: how images become its input, and what its output is.

    Returns:
        The largest difference, as a part of the range (largest - smallest) of torch's output over all images.

    Raises:
        PretrainedError: torch's output is not finite or everywhere the same, the runtime cannot use the output, or the
            difference is above `RANGE_TOLERANCE`.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    preprocess, expected, got = Preprocessor(contract), [], []
    for image in _images():
        given = preprocess(RgbFrame(image))
        with torch.no_grad():
            expected.append(model(torch.from_numpy(given.tensor)).numpy())
        got.append(session.run(["depth"], {"image": given.tensor})[0])
        try:
            shown = enlarge(map_from_raw(got[-1], given.resize, contract), (image.shape[0], image.shape[1]))
        except DepthAnythingError as error:
            raise PretrainedError(f"the exported network does not run as its contract says: {error}") from error
        if not np.isfinite(shown.values).any():
            raise PretrainedError("the exported network gives no depth anywhere; check that the weights are whole and the architecture is theirs")
    spread = float(np.ptp(np.stack(expected)))
    if not np.isfinite(spread) or spread == 0:
        raise PretrainedError(f"the network gives the same or no number everywhere (range {spread}); are these the weights of a trained network?")
    difference = float(np.abs(np.stack(got) - np.stack(expected)).max()) / spread
    if not difference <= RANGE_TOLERANCE:
        raise PretrainedError(
            f"ONNX Runtime differs from torch by {difference:.1e} of the output's range, allowed: {RANGE_TOLERANCE:.0e}; "
            "the file was not written; try other versions of torch, onnxscript and onnxruntime"
        )
    return difference


def _images() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return two (360, 640, 3) uint8 images: coloured noise pixel by pixel, and in blocks of 40."""
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    return noise, noise[:9, :16].repeat(40, 0).repeat(40, 1)
