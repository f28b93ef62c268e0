#!/usr/bin/env bash
# Sets up what is missing, then lints, checks types and tests, up to the first that fails.
# Arguments go to pytest: launch/test.sh -k advantages
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./launch/setup.sh --dev
export PATH=$PWD/.venv/bin:$PATH

run() {
    printf '\n== %s\n' "$*"
    python -m "$@"
}
run ruff check .
run ruff format --check .
run mypy
run pytest "$@"
