"""Results of ablation.sh -> a Markdown table: mean and spread over the seeds, per kind of photograph and for rendered validation scenes.

Run: python -m training.ablation_table OUT, the folder that ablation.sh wrote.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

RAMP = "vertical ramp"
"""What `evaluate` calls its baseline."""
VARIANTS = {
    "A": "labelled only",
    "B": "+ pseudo-labels",
    "C": "+ strong perturbations",
    "D": "+ feature alignment",
}
DOMAINS = ("driving", "indoor", "tabletop", "all")


def mean_and_spread(values: list[float]) -> str:
    """Return `mean +- sample deviation`, three digits; the mean alone of a single value."""
    spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def ablation_table(evaluation: dict[str, Any], validation: dict[str, dict[str, float]]) -> str:
    """Return the tables.

    Args:
        evaluation: what `evaluate --json` wrote; models are named by the paths of their checkpoints, OUT/<variant><seed>/checkpoint.
        validation: figures on rendered scenes by run, such as `A0`.

    Raises:
        ValueError: there is no finished run of a variant.
    """
    means = {Path(row["model"]).parent.name or row["model"]: row["aligned"] for row in evaluation["means"] if row["preset"] == "midas"}
    lines = [f"| AbsRel / delta1 | {' | '.join(DOMAINS)} | rendered |", f"|---|{'---|' * (len(DOMAINS) + 1)}"]
    for key, text in VARIANTS.items():
        runs = sorted(name for name in means if name[0] == key and name[1:].isdigit())
        if not runs:
            raise ValueError(f"no finished run of variant {key} ({text})")
        cells = [_cell([means[run][domain] for run in runs]) for domain in DOMAINS]
        lines.append(f"| {key}: {text} ({len(runs)} seeds) | {' | '.join(cells)} | {_cell([validation[run] for run in runs])} |")
    for name, text in (("teacher", "teacher"), (RAMP, RAMP)):
        if name in means:
            cells = [_cell([means[name][domain]]) for domain in DOMAINS]
            lines.append(f"| {text} | {' | '.join(cells)} | {_cell([validation[name]]) if name in validation else ''} |")
    return "\n".join(lines)


def _cell(rows: list[dict[str, float]]) -> str:
    return " / ".join(mean_and_spread([row[metric] for row in rows]) for metric in ("abs_rel", "delta1"))


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.ablation_table", description=__doc__)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(argv)
    validation = {path.parent.name: json.loads(path.read_text())["validation"] for path in args.out.glob("*/checkpoint.json")}
    print(ablation_table(json.loads((args.out / "evaluation.json").read_text()), validation))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
