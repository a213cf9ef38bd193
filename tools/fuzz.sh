#!/usr/bin/env bash
# Builds the fuzz programs and runs each over its corpus.
# usage: tools/fuzz.sh [SECONDS in all, default 60]
# A crash leaves its input in build-fuzz/crashes/ and ends with exit status 1.
set -euo pipefail
cd "$(dirname "$0")/.."
total=${1:-60}

cmake --preset fuzz --log-level=NOTICE
cmake --build --preset fuzz --target fuzz_programs

programs=(build-fuzz/bin/*_fuzz)
each=$((total / ${#programs[@]} > 0 ? total / ${#programs[@]} : 1))
mkdir -p build-fuzz/crashes
status=0
for program in "${programs[@]}"; do
  name=$(basename "$program" _fuzz)
  # New inputs go to the first folder, so that the seeds stay as committed.
  found=build-fuzz/corpus/$name
  mkdir -p "$found"
  seeds=()
  [ -d "tests/fuzz/corpus/$name" ] && seeds=("tests/fuzz/corpus/$name")
  echo "fuzz $name: ${each} s, $(find "${seeds[@]}" -type f 2>/dev/null | wc -l) seeds"
  if ! "$program" -max_total_time="$each" -timeout=10 -rss_limit_mb=1024 \
    -max_len=65536 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="build-fuzz/crashes/$name-" "$found" "${seeds[@]}" \
    2>"build-fuzz/$name.log"; then
    status=1
    tail -n 40 "build-fuzz/$name.log"
  fi
  grep -E 'number_of_executed_units|peak_rss' "build-fuzz/$name.log" || true
done
exit $status
