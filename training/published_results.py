"""Published zero-shot results of relative models, to stand beside ours. Data only; nothing here was measured by this package.

Sources: V1 = Depth Anything (Yang et al. 2024, arXiv:2401.10891v2), Table 2; V2 = Depth Anything V2 (Yang et al. 2024,
arXiv:2406.09414), Table 2, which has no DDAD. The papers state: original resolution, scale and shift aligned as in MiDaS.
They do not state splits, depth limits, crops, or the part of DIODE, and no evaluation code was released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_COLUMNS = ("kitti", "nyuv2", "sintel", "ddad", "eth3d", "diode_indoor")


@dataclass(frozen=True)
class PublishedResult:
    """One row of a table.

    Attributes:
        model: name and size.
        source: paper and table.
        scores: data set (a key of `protocols.PROTOCOLS`) -> (AbsRel, delta1).
    """

    model: str
    source: str
    scores: Mapping[str, tuple[float, float]]


def _row(model: str, source: str, *scores: tuple[float, float] | None) -> PublishedResult:
    return PublishedResult(model, source, MappingProxyType({name: pair for name, pair in zip(_COLUMNS, scores, strict=True) if pair}))


PUBLISHED = (
    _row("MiDaS v3.1 BEiT-L-512", "V1 Table 2", (0.127, 0.850), (0.048, 0.980), (0.587, 0.699), (0.251, 0.766), (0.139, 0.867), (0.075, 0.942)),
    _row("Depth Anything S", "V1 Table 2", (0.080, 0.936), (0.053, 0.972), (0.464, 0.739), (0.247, 0.768), (0.127, 0.885), (0.076, 0.939)),
    _row("Depth Anything B", "V1 Table 2", (0.080, 0.939), (0.046, 0.979), (0.432, 0.756), (0.232, 0.786), (0.126, 0.884), (0.069, 0.946)),
    _row("Depth Anything L", "V1 Table 2", (0.076, 0.947), (0.043, 0.981), (0.458, 0.760), (0.230, 0.789), (0.127, 0.882), (0.066, 0.952)),
    _row("Depth Anything V2 S", "V2 Table 2", (0.078, 0.936), (0.053, 0.973), (0.500, 0.718), None, (0.142, 0.851), (0.073, 0.942)),
    _row("Depth Anything V2 B", "V2 Table 2", (0.078, 0.939), (0.049, 0.976), (0.495, 0.734), None, (0.137, 0.858), (0.068, 0.950)),
    _row("Depth Anything V2 L", "V2 Table 2", (0.074, 0.946), (0.045, 0.979), (0.487, 0.752), None, (0.131, 0.865), (0.066, 0.952)),
    _row("Depth Anything V2 G", "V2 Table 2", (0.075, 0.948), (0.044, 0.979), (0.506, 0.772), None, (0.132, 0.862), (0.065, 0.954)),
)

NOTE = (
    "Published rows: V1 Table 2 (arXiv:2401.10891) and V2 Table 2 (arXiv:2406.09414); their splits, depth limits and crops are not stated, "
    "so compare with care. Their DIODE column stands under diode_indoor, where others could reproduce it; the papers do not name the part. "
    "MiDaS v3.1 was trained on KITTI and NYUv2."
)
