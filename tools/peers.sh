#!/usr/bin/env bash
# Installs the Python programs this project is compared with into .peers/.
set -euo pipefail

readonly torch=torch==2.15.0
readonly core_wheels=(
  numpy==2.4.6 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0
  tensorboard==2.21.0 pytest==9.2.0 requests==2.34.2
  # what the wheel 'torch' asks for besides CUDA
  filelock typing-extensions sympy networkx jinja2 fsspec 'setuptools>=77'
  # what deepspeed asks for besides torch
  einops hjson msgpack ninja packaging psutil py-cpuinfo pydantic tqdm
)
# transformers 4 ties lm_head.bias as RoBERTa does; it lies beside version 5.
readonly transformers4_wheels=(
  transformers==4.57.6 huggingface_hub==0.36.2 tokenizers==0.22.2
)
readonly full_wheels=(
  datasets==5.2.0 fire==0.7.1 loguru==0.7.3 pytz sh==2.4.0 httpx
  pyarrow==26.0.1
)
readonly deepspeed=deepspeed==0.19.8

usage() {
  cat <<'TEXT'
usage: tools/peers.sh [core|full|gpu]

  core   torch, transformers, tokenizers, deepspeed, tensorboard, pytest: what
         the parity tests need (default; 0.6 GB beside .deps/site, two minutes)
  full   core, and datasets: what HelloDeepSpeed needs
  gpu    full, and torch with its CUDA libraries (6 GB)

Goes to $PEERS_ROOT, or .peers of this checkout. Does nothing when all is there.
  bin/python    transformers 5
  bin/python4   transformers 4.57.6
TEXT
}

say() { echo "peers: $*"; }

fail() {
  echo "peers: $2" >&2
  echo "peers: $3" >&2
  exit "$1"
}

pip_install() {
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --retries 2 "$@" >"$dir/pip.log" 2>&1 && return
  tail -n 8 "$dir/pip.log" | sed 's/^/  | /' >&2
  fail 69 "pip cannot install: $*" "is there a network? All of it: $dir/pip.log"
}

# is_done PART: the stamp of a part holds this script's versions.
is_done() { [ "$(cat "$dir/stamp-$1" 2>/dev/null)" = "$versions" ]; }
mark_done() {
  echo "$versions" >"$dir/stamp-$1.new"
  mv "$dir/stamp-$1.new" "$dir/stamp-$1"
}

install_core() {
  if is_done core; then return; fi
  say "installing the core into $dir"
  find "$dir" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
  python3 -m venv "$dir" ||
    fail 69 "cannot make a Python environment" "type: tools/setup.sh"
  packages=$("$dir/bin/python" -c 'import site; print(site.getsitepackages()[0])')
  # One copy of torch serves the build and the peers.
  local site=$root/.deps/site
  if [ -e "$site/torch/lib/libtorch_python.so" ]; then
    echo "$site" >"$packages/torch_of_the_build.pth"
  else
    pip_install --no-deps "$torch" 'nvidia-cuda-runtime==13.2.*' \
      'nvidia-cuda-cupti==13.2.*'
    site=$packages
  fi
  make_cuda_stand_ins "$site/torch/lib"
  # pip lists the CUDA packages that torch misses; that is intended here.
  pip_install "${core_wheels[@]}"
  pip_install --no-deps "$deepspeed" # its dependency torch is here already
  pip_install --no-deps --target "$dir/transformers4" "${transformers4_wheels[@]}"
  cat >"$dir/bin/python4" <<P
#!/bin/sh
PYTHONPATH="$dir/transformers4\${PYTHONPATH:+:\$PYTHONPATH}" exec "$dir/bin/python" "\$@"
P
  chmod +x "$dir/bin/python4"
  local python
  for python in python python4; do
    "$dir/bin/$python" -c 'import torch, transformers.models.roberta' ||
      fail 70 "torch does not load" "remove $dir and run tools/peers.sh again"
  done
  mark_done core
}

# make_cuda_stand_ins LIB: libtorch_python.so of the wheel is linked to 5 GB of CUDA
# libraries that a machine without a GPU never calls. Libraries of the same names
# that only hold the symbols the loader asks for take their place; each function
# aborts. They are loaded before torch by a .pth file.
make_cuda_stand_ins() {
  local lib=$1 out=$dir/cuda_stand_ins name
  mkdir -p "$out"
  undefined_symbols "$lib" >"$out/undefined"
  {
    echo 'void abort(void);'
    grep -E '^(cublas|cusparse|cufft|cudnn|cuFile|nccl|nvrtc)' "$out/undefined" |
      sed 's/.*/void &(void) { abort(); }/'
    # Asked at import: "is NVSHMEM there?" No.
    nm -D --defined-only "$lib/libtorch_nvshmem.so" | awk '{ print $NF }' | sort -u |
      comm -12 - "$out/undefined" | grep nvshmem |
      sed 's/.*/int &(void) { return 0; }/'
  } >"$out/stand_ins.c"
  for name in libcusparse.so.12 libcufft.so.12 libcufile.so.0 libcusparseLt.so.0 \
    libnccl.so.2 libcublas.so.13 libcublasLt.so.13 libcudnn.so.9 libnvrtc.so.13 \
    libtorch_nvshmem.so; do
    cc -shared -fPIC -fno-builtin -Wl,-soname,$name -o "$out/$name" \
      "$out/stand_ins.c"
  done
  cat >"$packages/cuda_stand_ins.py" <<P
"""Loads the stand-ins for CUDA's libraries before torch is imported."""
import ctypes, pathlib
for path in sorted(pathlib.Path("$out").glob("*.so*")):
    ctypes.CDLL(str(path))
P
  echo 'import cuda_stand_ins' >"$packages/cuda_stand_ins.pth"
}

undefined_symbols() {
  nm -D --undefined-only "$1/libtorch_cuda.so" "$1/libtorch_python.so" |
    awk 'NF == 2 { sub(/@.*/, "", $2); print $2 }' | sort -u
}

install_full() {
  if is_done full; then return; fi
  say "installing datasets into $dir"
  pip_install "${full_wheels[@]}"
  pip_install --no-deps --target "$dir/transformers4" datasets==4.4.1
  mark_done full
}

install_gpu() {
  if is_done gpu; then return; fi
  say "installing torch with its CUDA libraries into $dir (6 GB)"
  packages=$("$dir/bin/python" -c 'import site; print(site.getsitepackages()[0])')
  rm -f "$packages"/cuda_stand_ins.* "$packages/torch_of_the_build.pth"
  pip_install "$torch"
  mark_done gpu
}

main() {
  local what=${1:-core}
  case $what in
    core | full | gpu) ;;
    -h | --help) usage && exit 0 ;;
    *) fail 64 "unknown set '$what'" "one of: core, full, gpu" ;;
  esac
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  dir=${PEERS_ROOT:-$root/.peers}
  # An environment that this script did not make is used as it is.
  if [ -x "$dir/bin/python" ] && ! [ -e "$dir/.lock" ]; then
    say "using $dir as it is"
    return
  fi
  versions="$torch ${core_wheels[*]} ${transformers4_wheels[*]} ${full_wheels[*]} $deepspeed"
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  exec 9>"$dir/.lock"
  flock 9 # two runs at once take turns
  install_core
  [ "$what" = core ] || install_full
  [ "$what" != gpu ] || install_gpu
  say "all is there"
}

main "$@"
