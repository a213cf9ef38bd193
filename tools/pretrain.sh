#!/usr/bin/env bash
# A first result: trains a small RoBERTa on the packaged corpus, evaluates it,
# fills a mask. Called by `make pretrain`; more arguments go to train_bert.
set -euo pipefail
cd "$(dirname "$0")/.."
iterations=${ITERATIONS:-300}
model=experiments/model

run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

run build/bin/train_bert --checkpoint_dir experiments \
  --num_iterations "$iterations" --checkpoint_every 100 \
  --validation_file data/encyclopedia/valid.txt --eval_every 100 \
  --export "$model" "$@"
run build/bin/fill_mask "$model" "The capital of France is <mask>."
