#!/usr/bin/env bash
# Sets up what is missing, then trains a small model on arithmetic; arguments override the recipe:
#
#   launch/quickstart.sh run.steps=5 run.dir=runs/short
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./launch/setup.sh

# Generation and training take turns on the same cores. By default, the OpenMP threads of the side that
# waits spin for a while, which slows the side that works several times over where cores are few.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

exec .venv/bin/grpo train launch/recipes/quickstart.yaml "$@"
