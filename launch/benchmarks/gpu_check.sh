#!/usr/bin/env bash
# What a GPU makes of the trainer, in at most 8 minutes: versions, tests/gpu, updates of 0.5B and 1.5B models, FlexAttention,
# export. Needs torch, transformers, peft, pytest, pydantic, pyyaml and rich; no vLLM, no hub, nothing installed of this project.
#   launch/benchmarks/gpu_check.sh [--out FOLDER] [--minutes 8] [--device cuda|cpu] [--small]
# FOLDER (gpu_check) gets gpu_check.json and gpu_check.md, written anew after each part. PYTHON names another interpreter.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH=$root:$root/launch/benchmarks${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "${PYTHON:-python3}" "$root/launch/benchmarks/gpu_check.py" "$@"
