#!/usr/bin/env bash
# The document's two experiments, on a throwaway server's CPU: the same network, data, first weights, seed and number of
# iterations, once at the learning rate of a schedule for 8 GPUs and once at that of the scaled one. The first diverges
# and is diagnosed, the second learns; a picture shows both. Called by `make rehearse`.
# Usage: scripts/rehearse.sh [FILE]   FILE: variables that name the repositories, in place of mirror/sources.yml
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
. scripts/steps.sh

state=.fleet/rehearse
stack=cuda90_wheel
sources=${1:-mirror/sources.yml}
home=$PWD/$state/homes/server1
prefix=$home/detectron/$stack
export PATH="$PWD/.venv/bin:$PATH"
if [ -t 1 ]; then export ANSIBLE_FORCE_COLOR=1; fi

fleet() { python tests/fleet/fleet.py "$1" --state $state "${@:2}"; }

play() {
  ansible-playbook --inventory $state/inventory.yml --extra-vars "@$sources" --extra-vars @files/rehearse.yml \
    --extra-vars "rehearse_rate=$rate" --extra-vars "rehearse_weights=$weights" "$@"
}

start_server() {
  fleet up && fleet inventory --group stack_$stack
  rm -rf "$home/data" "$prefix/runs"
  local part
  for part in train val; do
    python tests/fleet/tiny_coco.py --name $part --seed ${#part} "$home/data" >/dev/null
  done
  chmod -R a+rX "$home/data"
}

# Detectron's baseline, for 8 GPUs as it is, and small enough for minutes on a CPU.
shrink_baseline() {
  mkdir -p $state/configs && rm -f $state/configs/document.yaml
  # The links of a generation are those that the server sees.
  local baseline
  baseline=$home/$(readlink "$prefix/current/detectron" | cut -d/ -f4-)
  scripts/derive_config.py "$baseline/configs/12_2017_baselines/e2e_mask_rcnn_R-50-FPN_1x.yaml" \
    --gpus 8 --file $state/configs/document.yaml --weights random --set SOLVER.BASE_LR=$rate \
    --set SOLVER.MAX_ITER=$iterations --set 'SOLVER.STEPS=[0]' --set SOLVER.WARM_UP_ITERS=0 "${smaller[@]}"
}

train() { play playbooks/train.yml --extra-vars train_follow=true --extra-vars "train_only=$1"; }

# The stand-in draws the same weights each time; of the real Detectron, a run keeps those that it drew.
draw_weights() {
  weights=random train first
  weights=/home/researcher/detectron/$stack/runs/first/train/things_train/generalized_rcnn/model_final.pkl
}

# Both at once. One of them must fail, and so the run; the next step looks at which.
train_both() {
  if train unscaled,scaled; then echo 'No experiment has failed.' && return 1; fi
}

judge() {
  play playbooks/train_status.yml | tee $state/status.txt
  grep -q 'unscaled: failed' $state/status.txt || { echo 'The unscaled experiment has not failed.' && return 1; }
  grep -qE 'FATAL (The loss is not a number|Boxes have negative areas)' $state/status.txt ||
    { echo 'Its divergence was not diagnosed.' && return 1; }
  grep -q '[^n]scaled: finished' $state/status.txt || { echo 'The scaled experiment has not finished.' && return 1; }
}

draw() {
  local picture=detectron/$stack/runs/losses.png
  fleet shell server1 ". detectron/$stack/current/activate.sh && python - $picture \
    unscaled=detectron/$stack/runs/unscaled/log.txt scaled=detectron/$stack/runs/scaled/log.txt" <files/py27/plot_losses.py
  cp "$home/$picture" $state/losses.png
}

rate=2e-4 iterations=10 weights=random first_weights=
smaller=(--set 'TRAIN.SCALES=(160,)' --set TRAIN.MAX_SIZE=256 --set TEST.SCALE=160 --set TEST.MAX_SIZE=256)
if grep -qs '^detectron_repository: detectron-standin' "$sources"; then
  rate=0.8 iterations=25
  detectron='a STAND-IN for Detectron, on the real Caffe2'
else
  detectron='the real Detectron'
  first_weights=1
  smaller+=(--set TRAIN.BATCH_SIZE_PER_IM=64 --set TRAIN.RPN_POST_NMS_TOP_N=100)
fi

step "System" scripts/system.sh servers
step "Mirror" ansible-playbook playbooks/mirror.yml
step "Throwaway server" start_server
step "Provision it" play site.yml
step "A schedule for 8 GPUs" shrink_baseline
if [ -n "$first_weights" ]; then step "The first weights" draw_weights; fi
step "Train with it on one, unscaled and scaled" train_both
step "Judge" judge
step "Draw" draw
summary "make rehearse"
cat <<END

With $detectron:
the same network, data, first weights, seed and number of iterations. Only the learning rate differs, by the factor 8
that the linear scaling rule gives for 1 GPU in place of 8.

Losses of both:       $state/losses.png
Run it again:         make rehearse
Remove the server:    make clean
END
