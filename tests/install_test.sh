#!/usr/bin/env bash
# Installs the build into an empty folder, then builds and runs examples/
# against it from outside the tree.
# usage: install_test.sh BUILD_DIR SOURCE_DIR TORCH_ROOT
set -euo pipefail
build=$1 source=$2 torch=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
prefix=$folder/prefix

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

cmake --install "$build" --prefix "$prefix" >/dev/null
if grep -rn -e "$build" -e "$source/deepspeed" "$prefix/lib/cmake"; then
  fail "the package names folders of the build"
fi
[ -z "$(find "$prefix/include" -name '*_test*' -o -name '*test_*')" ] ||
  fail "tests are installed"
[ -s "$prefix/share/doc/deepspeed/docs/engine.md" ] || fail "docs are missing"

# A copy, so that a header of the source tree cannot be found by accident.
cp -r "$source/examples" "$folder/examples"
cmake -S "$folder/examples" -B "$folder/build" -G Ninja \
  -DCMAKE_PREFIX_PATH="$prefix" -DTORCH_ROOT="$torch" >/dev/null
cmake --build "$folder/build" >/dev/null

cd "$folder"
build/train_module circle.pt | tee train.txt
last=$(awk '/^step 300 loss/ { print $4 }' train.txt)
awk -v loss="$last" 'BEGIN { exit !(loss > 0 && loss < 0.15) }' ||
  fail "the loss after 300 steps is '$last', not below 0.15"

build/list_tensors circle.pt | tee tensors.txt
printf '%s\n' 'hidden.weight: float32[32, 2]' 'hidden.bias: float32[32]' \
  'out.weight: float32[1, 32]' 'out.bias: float32[1]' | diff - tensors.txt ||
  fail "the saved file holds other tensors"

status=0
build/list_tensors missing.pt 2>error.txt || status=$?
[ "$status" = 66 ] || fail "a missing file ends with $status, not 66"

# An own module under the installed launcher: two ranks, then one that goes on.
sharded() { # RANKS STEP
  "$prefix/bin/deepspeed" --num_gpus "$1" build/train_sharded \
    examples/circle_config.json circle | tee "sharded_$1.txt"
  [ "$(cat circle/latest)" = "global_step$2" ] || fail "no checkpoint of step $2"
  [ "$(ls circle/global_step$2/*_optim_states.pt | wc -l)" = "$1" ] ||
    fail "not one shard for each of $1 ranks"
}
sharded 2 300
sharded 1 600
[ "$(awk '{ print $2 }' sharded_1.txt | tr '\n' ' ')" = "400 500 600 " ] ||
  fail "the second start does not go on after the first"
last=$(awk '/^step 600 loss/ { print $4 }' sharded_1.txt)
awk -v loss="$last" 'BEGIN { exit !(loss > 0 && loss < 0.15) }' ||
  fail "the loss after 600 steps is '$last', not below 0.15"
"$prefix/bin/zero_to_fp32" circle circle_fp32
build/list_tensors circle_fp32/pytorch_model.bin | diff tensors.txt - ||
  fail "zero_to_fp32 gives other tensors"

for program in "$prefix"/bin/*; do
  "$program" --help >/dev/null || fail "$program --help"
done
