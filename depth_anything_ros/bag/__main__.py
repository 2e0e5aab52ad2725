"""Depth for a recorded bag, without ROS: a new bag with everything that was there, and depth, camera_info and clouds beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..arguments import add_arguments
from ..memory import keep_freed_memory


def main(argv: list[str] | None = None) -> int:
    """Convert a bag.

    Returns:
        0 where all went well, 1 where something of the input could not be used, 2 where the run could not start or go on, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="python3 -m depth_anything_ros.bag",
        description=f"{__doc__} A run that was interrupted goes on where the same command is given again.",
    )
    parser.add_argument("input", metavar="IN", type=Path, help="a bag's folder, or one .mcap or .db3 file")
    parser.add_argument("output", metavar="OUT", type=Path, help="folder of the new bag; must not exist")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="image topics (default: all that have pictures)")
    parser.add_argument("--cloud", action="store_true", help="write point clouds, too")
    parser.add_argument("--output-name", default="depth", metavar="NAME", help="the outputs are <camera>/NAME/image and so on (default: %(default)s)")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), help="of the new bag (default: as the input)")
    parser.add_argument(
        "--segment-images",
        type=int,
        default=500,
        metavar="N",
        help="images in one file of the new bag; a resumed run repeats less than that (default: %(default)s)",
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.segment_images < 1:
        parser.error("--segment-images must be at least 1")
    keep_freed_memory()
    try:
        from .conversion import convert
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rosbags":
            raise
        print("bag: needs the package 'rosbags': pip install rosbags", file=sys.stderr)
        return 2
    return convert(args)


if __name__ == "__main__":
    raise SystemExit(main())
