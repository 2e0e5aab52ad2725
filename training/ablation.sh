#!/usr/bin/env bash
# The paper's argument in small (Depth Anything, arXiv:2401.10891, table 9): the same network, initialisation and number of images per
# step with (A) labelled images only, (B) + pseudo-labels, (C) + strong perturbations, (D) + feature alignment; several seeds each.
# usage: training/ablation.sh OUT TRAIN VAL UNLABELLED EVALUATION [STEPS] [SEEDS] [JOBS]
#   OUT: results; TRAIN, VAL: rendered shards; UNLABELLED: tar files of pack_images; EVALUATION: photographs with index.json
set -euo pipefail
[ $# -ge 5 ] || { sed -n 2,6p "$0" | cut -c3- >&2; exit 2; }
out="$(realpath -m "$1")" train="$(realpath "$2")" val="$(realpath "$3")" unlabelled="$(realpath "$4")" evaluation="$(realpath "$5")"
steps="${6:-600}" seeds="${7:-0 1 2}" jobs="${8:-2}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$out"
trap 'kill $(jobs -pr) 2>/dev/null || true' EXIT
run() { # run MODULE NAME OVERRIDE...; finished runs are left as they are
    local module="$1" name="$2" overrides=() override; shift 2
    [ ! -e "$out/$name.done" ] || return 0
    for override in "data.labelled=[\"shards:$train\"]" "data.validation=[\"shards:$val\"]" run.validate_every=0 run.tensorboard=false run.threads=1 \
        "run.out=$out/$name" "$@"; do
        overrides+=(--set "$override")
    done
    python -m "training.$module" --config training/configs/compact.yaml "${overrides[@]}" >"$out/$name.log" 2>&1 || { tail -5 "$out/$name.log" >&2; return 1; }
    touch "$out/$name.done"
}
run train_encoder encoder run.steps=$((2 * steps)) data.labelled_per_batch=24
start="network.initial=$out/encoder/checkpoint.safetensors"
run train_teacher teacher "$start" run.steps=$((4 * steps)) data.labelled_per_batch=24 run.seed=100
[ -e "$out/teacher.onnx" ] || python -m training.export "$out/teacher/checkpoint.safetensors" --out "$out/teacher.onnx"
python -m training.make_pseudo_labels "$unlabelled" --teacher "$out/teacher.onnx" --output "$out/labels" --label-size network --workers 2 >"$out/labels.log"
variant() { # variant NAME SEED
    local plain=(perturb.jitter_probability=0 perturb.blur_probability=0 perturb.cutmix_probability=0)
    local both=(data.labelled_per_batch=8 data.pseudo_per_batch=16 "data.pseudo=[\"$out/labels::$unlabelled\"]")
    local given=("$start" "run.seed=$2" "run.steps=$steps" "data.sizes_hw=[[96, 128]]")  # smaller than the teacher's, and fewer steps
    case "$1" in
        A) run train_teacher "A$2" "${given[@]}" data.labelled_per_batch=24 ;;
        B) run train_student "B$2" "${given[@]}" "${both[@]}" "${plain[@]}" ;;
        C) run train_student "C$2" "${given[@]}" "${both[@]}" ;;
        D) run train_student "D$2" "${given[@]}" "${both[@]}" "network.frozen_encoder=$out/encoder/checkpoint.safetensors" ;;
    esac
}
for seed in $seeds; do
    for name in A B C D; do
        while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n || true; done  # failures are found below
        variant "$name" "$seed" &
    done
done
wait
for seed in $seeds; do for name in A B C D; do
    [ -e "$out/$name$seed.done" ] || { echo "run $name$seed did not finish: $out/$name$seed.log" >&2; exit 1; }
done; done
models=("$out"/teacher/checkpoint.safetensors)
for seed in $seeds; do for name in A B C D; do models+=("$out/$name$seed/checkpoint.safetensors"); done; done
python -m training.evaluate "${models[@]}" --data "$evaluation" --json "$out/evaluation.json" --table "$out/evaluation.md" >/dev/null
python -m training.ablation_table "$out" | tee "$out/ablation.md"
