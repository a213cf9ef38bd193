#!/usr/bin/env bash
# Runs the micro benchmarks, then the comparisons with the Python peers.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=${PEERS_ROOT:-.peers}/bin/python

for program in build/bin/*_benchmark; do
  [ -x "$program" ] || continue
  printf '\n===== %s\n' "$program"
  "$program"
done

if [ ! -x "$peers" ]; then
  echo "comparisons: NOT RUN, the Python peers are not installed (make peers)"
  exit
fi
for script in benchmarks/*_benchmark.py; do
  [ -e "$script" ] || continue
  printf '\n===== %s\n' "$script"
  "$peers" "$script"
done
