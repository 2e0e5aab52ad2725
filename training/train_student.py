"""Stage of training: labelled and pseudo-labelled images -> the student (strong perturbations, CutMix, features anchored to a frozen encoder).

Run: python -m training.train_student --config FILE --set run.out=DIR. docs/training.md has the recipe and the choices.
"""

from __future__ import annotations

from .stage import run_stage


def main(argv: list[str] | None = None) -> int:
    """Command line: start a run, or continue the one in run.out."""
    return run_stage("student", __doc__ or "", argv)


if __name__ == "__main__":
    raise SystemExit(main())
