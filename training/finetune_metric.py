"""Stage of training: images with depth in metres -> a metric network, usually from a relative checkpoint (network.initial).

Run: python -m training.finetune_metric --config FILE --set run.out=DIR. docs/training.md has the recipe and the choices.
"""

from __future__ import annotations

from .stage import run_stage


def main(argv: list[str] | None = None) -> int:
    """Command line: start a run, or continue the one in run.out."""
    return run_stage("metric", __doc__ or "", argv)


if __name__ == "__main__":
    raise SystemExit(main())
