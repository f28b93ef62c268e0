#!/usr/bin/env bash
# Sets up what is missing, then trains a small model on arithmetic; arguments override the recipe:
#
#   launch/quickstart.sh run.steps=5 run.dir=runs/short
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./launch/setup.sh

exec .venv/bin/grpo train launch/recipes/quickstart.yaml "$@"
