#!/usr/bin/env bash
# All lints; goes through all of them before it fails.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
status=0

python3 tools/lint_includes.py || status=1
python3 tools/lint_budgets.py || status=1
python3 tools/lint_words.py || status=1
python3 tools/lint_docs.py || status=1

# Other versions lay out some lines differently.
if format=$(command -v clang-format-14); then
  if git ls-files -co --exclude-standard -z -- '*.cpp' '*.h' |
    xargs -0 "$format" --dry-run --Werror; then
    echo "format: ok"
  else
    status=1
  fi
else
  echo "format: NOT CHECKED, clang-format-14 is missing (apt install clang-format-14)"
fi
exit $status
