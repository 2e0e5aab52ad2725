#!/usr/bin/env bash
# The whole chain on a CPU: rendered labelled scenes and unlabelled images -> encoder -> teacher -> pseudo-labels -> student
# -> metric student -> ONNX files that the node's own pipeline then runs. It may be stopped and started again at any time.
set -euo pipefail
usage() {
    cat <<'TEXT'
usage: bash training/run_all.sh --smoke | --images N --steps N   [options]
  --smoke            1200 rendered images, 300 steps per stage: some minutes on two cores; shows that it works, not how good it gets
  --images N         rendered training images (an eighth as many for validation, half as many more as unlabelled ones)
  --steps N          optimiser steps of each stage
  --out DIR          where everything goes (default: runs/chain)
  --assets DIR       folder with index.json of textured meshes for the renderer
  --unlabelled DIR   images, videos or tar files to pseudo-label (default: more rendered images, their labels left aside)
  --evaluation DIR   photographs with ground truth and index.json: zero-shot tables of teacher and students
TEXT
}
images="" steps="" out=runs/chain assets="" unlabelled="" evaluation=""
while [ $# -gt 0 ]; do
    case "$1" in
        --smoke) images=1200 steps=300; shift; continue ;;
        --help | -h) usage; exit 0 ;;
        --images | --steps | --out | --assets | --unlabelled | --evaluation) [ $# -gt 1 ] || { usage >&2; exit 2; } ;;
        *) echo "unknown argument '$1'" >&2; usage >&2; exit 2 ;;
    esac
    name="${1#--}"; printf -v "$name" %s "$2"; shift 2
done
[ -n "$images" ] && [ -n "$steps" ] || { usage >&2; exit 2; }
[ "$images" -ge 16 ] || { echo "--images must be at least 16: an eighth of them is for validation" >&2; exit 2; }
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
for name in out assets unlabelled evaluation; do  # paths are meant from where the user is
    [ -z "${!name}" ] || printf -v "$name" %s "$(realpath -m "${!name}")"
done
if ! python -c 'import torch, pydantic, moderngl, onnx' 2>/dev/null; then
    # shellcheck disable=SC1091
    . "$root/scripts/environment.sh"
    use_venv training
fi
cd "$root"
mkdir -p "$out"
asked="images $images, assets '$assets', unlabelled '$unlabelled'"
if [ -e "$out/asked.txt" ] && [ "$(cat "$out/asked.txt")" != "$asked" ]; then
    echo "'$out' holds results of $(cat "$out/asked.txt"), not of $asked; choose another --out" >&2
    exit 2
fi
echo "$asked" >"$out/asked.txt"
export_model() { # export_model CHECKPOINT ONNX, unless it is there and newer
    [ "$2" -nt "$1" ] || python -m training.export "$1" --out "$2"
}
stage() { # stage NAME OVERRIDE...: train in $out/NAME
    local name="$1" module="$2" overrides=() override; shift 2
    for override in "run.out=$out/$name" "run.steps=$steps" "data.labelled=[\"shards:$out/train\"]" "data.validation=[\"shards:$out/val\"]" "$@"; do
        overrides+=(--set "$override")
    done
    say "$name"
    python -m "training.$module" --config training/configs/compact.yaml "${overrides[@]}"
}
say() { echo "== $(date +%T) $*"; }
render() { # render FOLDER SEED COUNT
    [ -e "$out/$1.done" ] && return
    say "render $3 images: $1"
    rm -rf "${out:?}/$1"
    python -m training.data.synthetic --out "$out/$1" --images "$3" --seed "$2" ${assets:+--assets "$assets"}
    touch "$out/$1.done"
}
served="data.sizes_hw=[[128, 160], [128, 160], [128, 224], [128, 352]]" # a network is good at about the height that it was last trained at
pseudo="data.pseudo=[\"$out/labels::$out/unlabelled\"]"
encoder="$out/encoder/checkpoint.safetensors" teacher="$out/teacher/checkpoint.safetensors" student="$out/student/checkpoint.safetensors"

render train 1 "$images"
render val 2 $((images / 8))
[ -n "$unlabelled" ] || render unlabelled_rendered 3 $((images / 2))
say "pack unlabelled images"
[ -e "$out/unlabelled/manifest.json" ] || python -m training.pack_images "${unlabelled:-$out/unlabelled_rendered}" --output "$out/unlabelled" --images-per-shard 200
stage encoder train_encoder
stage teacher train_teacher "network.initial=$encoder"
export_model "$teacher" "$out/teacher.onnx"
say "pseudo-labels"
python -m training.make_pseudo_labels "$out/unlabelled" --teacher "$out/teacher.onnx" --output "$out/labels" --label-size network --workers 2
stage student train_student "$served" "network.initial=$encoder" "network.frozen_encoder=$encoder" "$pseudo"
export_model "$student" "$out/student_relative.onnx"
stage metric finetune_metric "$served" "$pseudo" "data.pseudo_per_batch=6" "network.initial=$student" "network.initial_parts=all" "optimiser.learning_rate=1.0e-3"
export_model "$out/metric/checkpoint.safetensors" "$out/student_metric.onnx"
say "the node's pipeline on the exported students"
picture="$out/picture.jpg"
python - "$out/val" "$picture" <<'PYTHON'
import sys, cv2, numpy as np, pathlib
cv2.imwrite(sys.argv[2], np.load(sorted(pathlib.Path(sys.argv[1]).glob("*.rgb.npy"))[0])[0][..., ::-1])
PYTHON
for model in student_relative student_metric; do
    python -m depth_anything_ros.predict "$picture" --model "$out/$model.onnx" --output-dir "$out/predicted_$model"
done
if [ -n "$evaluation" ]; then
    python -m training.evaluate "$out/teacher.onnx" "$out/student_relative.onnx" "$out/student_metric.onnx" --data "$evaluation" \
        --json "$out/evaluation.json" --panel "$out/evaluation.png" | tee "$out/evaluation.md"
fi
say "done: $out/student_relative.onnx, $out/student_metric.onnx; pictures in $out/predicted_*, curves: tensorboard --logdir $out"
