"""Stage of training: labelled images -> a network that predicts affine-invariant disparity (the affine-invariant loss alone).

Run: python -m training.train_teacher --config FILE --set run.out=DIR. docs/training.md has the recipe and the choices.
"""

from __future__ import annotations

from .stage import run_stage


def main(argv: list[str] | None = None) -> int:
    """Command line: start a run, or continue the one in run.out."""
    return run_stage("teacher", __doc__ or "", argv)


if __name__ == "__main__":
    raise SystemExit(main())
