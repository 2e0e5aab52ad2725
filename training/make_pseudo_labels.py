"""Stage of training: images + teacher (ONNX) -> label shards, records and a manifest. It may be stopped and started again at any time.

Run: python -m training.make_pseudo_labels INPUT... --teacher MODEL.onnx --output DIR. docs/data_engine.md describes the format.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from depth_anything_ros.contract import ModelFile, read_model_file
from depth_anything_ros.errors import ConfigError, DepthAnythingError, EngineError

from .data.pseudo import FORMAT, IMAGE_ENDINGS, ImageShard, label_shard
from .data.teacher import PROVIDERS, LabelJob

MANIFEST = "manifest.json"
SUMS = ("images", "labels", "pixels", "bytes")
Record = dict[str, Any]


def find_shards(inputs: list[Path], images_per_shard: int = 1000) -> list[ImageShard]:
    """List the input shards in a fixed order.

    Args:
        inputs: tar files, folders of tar files (at any depth) and folders of images (at any depth).
        images_per_shard: how many images of a folder make a shard, in the order of their names.

    Raises:
        ConfigError: an input is missing, empty, holds both tars and images, or two would write the same label shard.
    """
    shards: dict[str, ImageShard] = {}
    for path in inputs:
        for shard in _shards_of_folder(path, images_per_shard) if path.is_dir() else [_tar_shard(path, path.name)]:
            if shard.name in shards:
                raise ConfigError(f"'{shard.path}' and '{shards[shard.name].path}' would both write '{shard.name}'; give each its own --output")
            shards[shard.name] = shard
    return list(shards.values())


def _shards_of_folder(folder: Path, images_per_shard: int) -> Iterator[ImageShard]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*.*") if path.is_file())
    tars = [name for name in names if name.endswith(".tar")]
    images = [name for name in names if name.rpartition(".")[2].lower() in IMAGE_ENDINGS]
    if bool(tars) == bool(images):
        raise ConfigError(f"folder '{folder}' holds {'both tar files and images' if tars else 'neither tar files nor images'}; give one kind")
    yield from (_tar_shard(folder / name, name) for name in tars)
    for start in range(0, len(images), images_per_shard):
        files = images[start : start + images_per_shard]
        name = f"{folder.resolve().name}-{start // images_per_shard:06d}.tar"
        yield ImageShard(name, str(folder), tuple(files), f"files sha256 {_digest(files)}")


def _tar_shard(path: Path, name: str) -> ImageShard:
    if not path.is_file() or path.suffix != ".tar":
        raise ConfigError(f"input '{path}' is not a folder and not a .tar file")
    return ImageShard(name, str(path), (), f"{path.stat().st_size} bytes")


def read_settings(teacher: ModelFile, label_size: str) -> Record:
    """Return everything that the labels depend on besides the images."""
    return {"format": FORMAT, "teacher_sha256": teacher.sha256, "label_size": label_size}


class Output:
    """The output folder: what is done in it, and its manifest."""

    def __init__(self, folder: Path, shards: list[ImageShard], settings: Record, teacher: Record) -> None:
        """Look at what is there.

        Raises:
            ConfigError: the folder holds labels of other settings or of other inputs under the same names.
        """
        self.folder, self.shards, self.settings, self.teacher = folder, shards, settings, teacher
        self.settings_id = _digest(settings)
        self.records: dict[str, Record] = {}
        self.unreadable: dict[str, str] = {}
        self._check_manifest()
        for shard in shards:
            record = _read_json(self._record_path(shard.name))
            if record:
                self._check(shard, record)
                self.records[shard.name] = record

    def todo(self) -> list[ImageShard]:
        """Return the shards that have no label shard yet."""
        return [shard for shard in self.shards if shard.name not in self.records]

    def add(self, record: Record) -> None:
        """Take what `label_shard` returned; with its record on disk, a shard is done."""
        if "unreadable" in record:
            self.unreadable[record["shard"]] = record["unreadable"]
            return
        _write_json(self._record_path(record["shard"]), record)
        self.records[record["shard"]] = record

    def write_manifest(self) -> Record:
        """Write and return the manifest: the sums over the records, in the order of the input."""
        records = [self.records[shard.name] for shard in self.shards if shard.name in self.records]
        manifest = {"settings": self.settings, "settings_id": self.settings_id, "teacher": self.teacher}
        manifest |= {"complete": len(records) == len(self.shards), "shards": len(self.shards), "shards_done": len(records)}
        manifest |= {name: sum(record[name] for record in records) for name in SUMS}
        manifest["failures"] = [{"shard": record["shard"], **failure} for record in records for failure in record["failures"]]
        manifest["unreadable_shards"] = [{"shard": name, "reason": reason} for name, reason in sorted(self.unreadable.items())]
        _write_json(self.folder / MANIFEST, manifest)
        return manifest

    def _record_path(self, name: str) -> Path:
        return (self.folder / name).with_suffix(".json")

    def _check_manifest(self) -> None:
        there = (_read_json(self.folder / MANIFEST) or {"settings": self.settings})["settings"]
        other = [f"{key} {there.get(key)}, not {value}" for key, value in self.settings.items() if there.get(key) != value]
        if other:
            raise ConfigError(f"'{self.folder}' holds labels of {'; '.join(other)}; labels are not mixed: choose another --output")

    def _check(self, shard: ImageShard, record: Record) -> None:
        labels = self.folder / shard.name
        if record["settings_id"] != self.settings_id:
            raise ConfigError(f"'{labels}' was made by another teacher or with other settings; choose another --output")
        if record["source_id"] != shard.source_id:
            raise ConfigError(
                f"'{labels}' was made of another input than '{shard.path}' is now "
                f"({record['source_id']}, not {shard.source_id}); choose another --output"
            )
        if not labels.is_file() or labels.stat().st_size != record["bytes"]:
            raise ConfigError(f"'{labels}' is not as its record says; remove '{self._record_path(shard.name)}' to make it again")


def run_here(shards: list[ImageShard], job: LabelJob, workers: int) -> Iterator[Record]:
    """Label on this machine, in this process or in a pool; yield the records as they come."""
    if workers == 1:
        yield from (label_shard(shard, job) for shard in shards)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        for future in as_completed([pool.submit(label_shard, shard, job) for shard in shards]):
            yield future.result()
    except BrokenProcessPool as error:
        raise EngineError("a worker was killed (out of memory?); start again with fewer --workers, finished shards are kept") from error
    finally:
        pool.shutdown(cancel_futures=True)


def run_on_ray(shards: list[ImageShard], job: LabelJob, address: str, gpus_per_task: float) -> Iterator[Record]:
    """Label on a Ray cluster: one task per shard, two tasks in hand for every CPU; yield the records as they come."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install ray") from error
    ray.init(address=address)
    try:
        task = ray.remote(label_shard).options(num_cpus=job.threads, num_gpus=gpus_per_task)
        in_hand, left = list[Any](), iter(shards)
        for _ in range(2 * max(1, int(ray.cluster_resources().get("CPU", 1)))):
            in_hand += [task.remote(shard, job) for shard in [next(left, None)] if shard]
        while in_hand:
            done, in_hand = ray.wait(in_hand)
            yield ray.get(done[0])
            in_hand += [task.remote(shard, job) for shard in [next(left, None)] if shard]
    finally:
        ray.shutdown()


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0: every shard is done, 1: some inputs could not be read, 2: nothing can go on, 130: Ctrl-C."""
    args = _parse(argv)
    try:
        shards = find_shards(args.inputs, args.images_per_shard)
        _check_output(args.output, args.inputs)
        file = read_model_file(args.teacher)
        with _locked(args.output):
            teacher = {"name": file.contract.name, "file": file.path.name, "licence": file.contract.licence}
            output = Output(args.output, shards, read_settings(file, args.label_size), teacher)
            output.write_manifest()
            settings = (output.settings_id, args.label_size, args.device, args.threads)
            job = LabelJob(str(args.output.resolve()), str(file.path.resolve()), file.sha256, *settings)
            manifest = _label_all(output, job, args)
    except (DepthAnythingError, OSError) as error:
        print(f"make_pseudo_labels: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_pseudo_labels: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    print(json.dumps({key: len(value) if isinstance(value, list) else value for key, value in manifest.items()}))
    return 0 if manifest["complete"] else 1


def _label_all(output: Output, job: LabelJob, args: argparse.Namespace) -> Record:
    todo, started, labels = output.todo(), time.monotonic(), 0
    absolute = [ImageShard(shard.name, str(Path(shard.path).resolve()), shard.files, shard.source_id) for shard in todo]
    records = run_on_ray(absolute, job, args.ray, args.gpus_per_task) if args.ray else run_here(absolute, job, args.workers)
    bar = tqdm(total=len(output.shards), initial=len(output.records), unit="shard", disable=None)
    try:
        with closing(records), bar:
            for record in records if todo else ():
                output.add(record)
                labels += record.get("labels", 0)
                bar.set_postfix_str(f"{labels / (time.monotonic() - started):.1f} labels/s", refresh=False)
                bar.update()
    finally:
        manifest = output.write_manifest()
    return manifest


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Hold the output folder, and clear what killed runs left in it. The kernel frees the lock of a process that dies."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another run writes into '{output}'; wait for it or choose another --output") from error
        for kind in ("tar", "json"):
            for path in output.rglob(f".*.{kind}.*.tmp"):
                path.unlink(missing_ok=True)
        yield


def _end_with_parent() -> None:
    """End a worker at once at Ctrl-C, and when its parent dies in whatever way: it would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_output(output: Path, inputs: list[Path]) -> None:
    for path in inputs:
        folder = (path if path.is_dir() else path.parent).resolve()
        if folder == output.resolve() or (path.is_dir() and folder in output.resolve().parents):
            raise ConfigError(f"--output '{output}' lies in the input '{path}'; choose a folder of its own")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, value: Record) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_json(path: Path) -> Record | None:
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError as error:
        raise ConfigError(f"'{path}' is damaged ({error}); remove it to make its labels again") from error


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.make_pseudo_labels", description=__doc__)
    parser.add_argument("inputs", metavar="INPUT", type=Path, nargs="+", help="tar shards, folders of tar shards, folders of images")
    parser.add_argument("--teacher", type=Path, required=True, help="ONNX file with a contract")
    parser.add_argument("--output", type=Path, required=True, help="folder for label shards, records and manifest")
    parser.add_argument("--label-size", choices=("image", "network"), default="image", help="pixels of a label (default: %(default)s)")
    parser.add_argument("--images-per-shard", type=int, default=1000, help="for folders of images (default: %(default)s)")
    parser.add_argument("--device", choices=tuple(PROVIDERS), default="cpu", help="where the teacher runs (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each teacher (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine (default: %(default)s)")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on Ray instead: auto, local, or the address of a cluster")
    parser.add_argument("--gpus-per-task", type=float, default=0.0, help="with --ray: GPUs, or share of one, for a task (default: %(default)s)")
    args = parser.parse_args(argv)
    if min(args.workers, args.threads, args.images_per_shard) < 1:
        parser.error("--workers, --threads and --images-per-shard must be at least 1")
    if args.ray and args.device == "cuda" and args.gpus_per_task <= 0:
        parser.error("--ray with --device cuda needs --gpus-per-task above 0: Ray hides the GPUs from tasks that ask for none")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
