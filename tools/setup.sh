#!/usr/bin/env bash
# Installs what a build needs: Debian packages, libtorch and Python tools in .deps/.
set -euo pipefail

readonly torch_version=2.15.0
readonly cuda_stubs=13.2 # versions of the two CUDA libraries that libtorch_cpu links
readonly mwparserfromhell_version=0.7.2
readonly nccl_version=2.30.7 # the one that torch names

readonly build_packages=(
  build-essential cmake ninja-build pkg-config git
  libcli11-dev nlohmann-json3-dev libzstd-dev zlib1g-dev libxxhash-dev
  liblzma-dev libbz2-dev
  libhwy-dev libgloo-dev libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-venv python3-pip
)
readonly fuzz_packages=(clang libclang-rt-14-dev)
readonly lint_packages=(clang-format clang-tidy)
readonly valgrind_packages=(valgrind)

usage() {
  cat <<'TEXT'
usage: tools/setup.sh [--with-cuda] [--with-fuzz] [--with-lint] [--with-valgrind]

Installs what is missing and does nothing when all is there:
  Debian packages   with apt-get, as root or through sudo
  .deps/site        libtorch out of the wheel 'torch' (not when TORCH_ROOT is set)
  .deps/venv        Python tools of `make data`

  --with-cuda       headers of CUDA and NCCL into .deps/cuda too (fetches 0.2 GB),
                    to compile libdeepspeed_cuda.so where there is no CUDA
  --with-fuzz       clang and its run-time library too, for the fuzz targets
  --with-lint       clang-format and clang-tidy too, for `make lint`
  --with-valgrind   valgrind too, for the test that counts instructions
TEXT
}

say() { echo "setup: $*"; }

# fail CODE WHAT HINT: exit codes as in sysexits.h
fail() {
  echo "setup: $2" >&2
  echo "setup: $3" >&2
  exit "$1"
}

# run_quietly LOG COMMAND...: shows the end of the output only when it fails.
run_quietly() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 && return
  tail -n 8 "$log" | sed 's/^/  | /' >&2
  return 1
}

parse_options() {
  wanted=("${build_packages[@]}")
  with_cuda=false
  for option in "$@"; do
    case $option in
      --with-cuda) with_cuda=true ;;
      --with-fuzz) wanted+=("${fuzz_packages[@]}") ;;
      --with-lint) wanted+=("${lint_packages[@]}") ;;
      --with-valgrind) wanted+=("${valgrind_packages[@]}") ;;
      -h | --help) usage && exit 0 ;;
      *) fail 64 "unknown option '$option'" "type: tools/setup.sh --help" ;;
    esac
  done
}

# The stamp holds one line for each part that was installed to the end.
is_stamped() { [ -f "$stamp" ] && grep -qxF -- "$1" "$stamp"; }

# stamp_part LINE: replaces the line of the same part, in one step.
stamp_part() {
  { [ ! -f "$stamp" ] || grep -v "^${1%% *} " "$stamp" || true; } >"$stamp.new"
  echo "$1" >>"$stamp.new"
  mv "$stamp.new" "$stamp"
}

install_debian_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "no apt-get here; install these with your package manager: ${wanted[*]}"
    return
  fi
  local installed missing=() package
  installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "${wanted[@]}" \
    2>/dev/null || true)
  for package in "${wanted[@]}"; do
    grep -qx "[hi]i *$package" <<<"$installed" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null ||
      fail 77 "missing Debian packages, and neither root nor sudo to install them" \
        "type as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq)
  run_quietly "$deps/apt.log" "${apt[@]}" -o APT::Update::Error-Mode=any update ||
    fail 69 "apt-get update failed" "is there a network? All of it: .deps/apt.log"
  run_quietly "$deps/apt.log" \
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" ||
    fail 69 "apt-get install failed" "is there a network? All of it: .deps/apt.log"
}

# A virtual environment cannot be moved, so it is made in place; one that was not
# finished has no stamp and is cleared by the next run.
install_python_tools() {
  local line="venv mwparserfromhell==$mwparserfromhell_version"
  if is_stamped "$line" && [ -x "$deps/venv/bin/python" ]; then return; fi
  say "making .deps/venv with mwparserfromhell $mwparserfromhell_version"
  run_quietly "$deps/pip.log" python3 -m venv --clear "$deps/venv" ||
    fail 69 "cannot make a Python environment" "is python3-venv installed?"
  install_wheels "mwparserfromhell==$mwparserfromhell_version"
  stamp_part "$line"
}

install_wheels() {
  run_quietly "$deps/pip.log" "$deps/venv/bin/python" -m pip install --quiet \
    --disable-pip-version-check --no-input --retries 2 --only-binary=:all: "$@" ||
    fail 69 "pip cannot install: $*" "is there a network? All of it: .deps/pip.log"
}

# libtorch of the wheel without its Python dependencies: 1.3 GB instead of 6.
install_torch() {
  if [ -n "${TORCH_ROOT:-}" ]; then
    [ -e "$TORCH_ROOT/lib/libtorch_cpu.so" ] ||
      fail 66 "TORCH_ROOT: no lib/libtorch_cpu.so in '$TORCH_ROOT'" \
        "point it at an unpacked libtorch or at the folder of the package torch"
    return
  fi
  local line="torch $torch_version cuda-runtime $cuda_stubs"
  has_torch "$deps/site" && is_stamped "$line" && return
  if ! has_torch "$deps/site"; then
    say "installing torch $torch_version into .deps/site (1.3 GB, some minutes)"
    rm -rf "$deps/site.new"
    install_wheels --no-deps --target "$deps/site.new" "torch==$torch_version" \
      "nvidia-cuda-runtime==$cuda_stubs.*" "nvidia-cuda-cupti==$cuda_stubs.*"
    rm -rf "$deps/site"
    mv "$deps/site.new" "$deps/site"
  fi
  stamp_part "$line"
}

# True when a folder holds the three wheels, each with its list of files.
has_torch() {
  [ -e "$1/torch/lib/libtorch_cpu.so" ] &&
    [ -e "$1/torch-$torch_version.dist-info/RECORD" ] &&
    compgen -G "$1/nvidia_cuda_runtime-$cuda_stubs.*/RECORD" >/dev/null &&
    compgen -G "$1/nvidia_cuda_cupti-$cuda_stubs.*/RECORD" >/dev/null
}

# Headers alone: where the module runs, libtorch_cuda.so brings the libraries.
install_cuda_headers() {
  local line="cuda $cuda_stubs nccl $nccl_version"
  [ -e "$deps/cuda/nvidia/nccl/include/nccl.h" ] && is_stamped "$line" && return
  say "installing headers of CUDA $cuda_stubs and NCCL $nccl_version into .deps/cuda"
  rm -rf "$deps/cuda.new"
  install_wheels --no-deps --target "$deps/cuda.new" \
    "nvidia-nccl-cu13==$nccl_version" "nvidia-cuda-runtime==$cuda_stubs.*" \
    "nvidia-cuda-crt==$cuda_stubs.*" "nvidia-cuda-cccl==$cuda_stubs.*"
  rm -rf "$deps/cuda" "$deps"/cuda.new/nvidia/*/lib
  mv "$deps/cuda.new" "$deps/cuda"
  stamp_part "$line"
}

main() {
  parse_options "$@"
  local root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  deps=$root/.deps
  stamp=$deps/stamp
  mkdir -p "$deps"
  exec 9>"$deps/.lock"
  flock 9 # two runs at once take turns
  install_debian_packages
  install_python_tools
  install_torch
  if $with_cuda; then install_cuda_headers; fi
  say "all is there"
}

main "$@"
