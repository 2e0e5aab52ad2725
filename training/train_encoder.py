"""Stage of training: images with class ids -> an encoder to start from and to anchor features to, where DINOv2's weights are not at hand.

Run: python -m training.train_encoder --config FILE --set run.out=DIR. docs/training.md has the recipe and the choices.
"""

from __future__ import annotations

from .stage import run_stage


def main(argv: list[str] | None = None) -> int:
    """Command line: start a run, or continue the one in run.out."""
    return run_stage("encoder", __doc__ or "", argv)


if __name__ == "__main__":
    raise SystemExit(main())
