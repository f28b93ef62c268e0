"""What the output head's precision costs and brings: log-probs of a model's own completions, in seconds and in nats.

    python launch/benchmarks/head_precision.py [--model PATH] [--completions 32] [--tokens 64] [--json FILE]

The model, loaded in bf16 as an engine loads it, writes completions of arithmetic questions and says how likely it finds
each token. Then the trainer computes the same log-probs with `model.head` bf16 and fp32, and once wholly in fp32, which
is taken for the truth. Seconds are medians of a forward and backward pass; the two sides take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from grpo.batching.pack import Packed, pack
from grpo.model.files import EMBEDDED, load_tokenizer, resolve_model
from grpo.model.network import Network
from grpo.recipe.sections import ModelSection
from grpo.records import Branch, PromptTree

Precision = Literal["bf16", "fp32"]
HEADS: tuple[Precision, ...] = ("bf16", "fp32")


def write(folder: Path, num: int, length: int, device: torch.device) -> tuple[list[PromptTree], Tensor]:
    """Completions of `length` tokens, as many branches of one prompt as there are, and the writer's log-probs (N,)."""
    tokenizer = load_tokenizer(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    prompt = tokenizer("Question: What is 47 + 38? Think step by step.\nAnswer:", return_tensors="pt").input_ids
    torch.manual_seed(0)
    rows = model.generate(
        prompt.repeat(num, 1).to(device), do_sample=True, top_k=0, min_new_tokens=length, max_new_tokens=length
    )
    start = prompt.shape[1]
    with torch.no_grad():
        log_probs = model(input_ids=rows).logits[:, start - 1 : -1].float().log_softmax(-1)
    written = rows[:, start:]
    sampler = log_probs.gather(-1, written[..., None])[..., 0]
    return [PromptTree(tuple(prompt[0].tolist()), tuple(map(_branch, written.tolist())))], sampler.flatten()


def _branch(ids: Sequence[int]) -> Branch:
    return Branch(tuple(ids), (0.0,) * len(ids), (1.0,) * len(ids), 1.0)


def network_with(folder: Path, head: Precision, compute: Precision, device: torch.device) -> Network:
    settings = ModelSection(path=str(folder), head=head, compute=compute)
    return Network(folder, settings, torch.float32, device)


def seconds_of(network: Network, packed: Packed) -> float:
    """One forward and backward pass."""
    _wait(packed)
    began = time.perf_counter()
    logps, _ = network.logprobs(packed, 1.0)
    logps.sum().backward()
    _wait(packed)
    elapsed = time.perf_counter() - began
    network.model.zero_grad(set_to_none=True)
    return elapsed


def _wait(packed: Packed) -> None:
    if packed.targets.is_cuda:
        torch.cuda.synchronize()


def measure(options: argparse.Namespace) -> list[dict[str, float | str]]:
    device = torch.device(options.device)
    folder = resolve_model(options.model)
    trees, sampler = write(folder, options.completions, options.tokens, device)
    packed = pack(trees, device)
    networks = {head: network_with(folder, head, "bf16", device) for head in HEADS}
    with torch.no_grad():
        truth = network_with(folder, "fp32", "fp32", device).logprobs(packed, 1.0, entropy=False)[0]
        found = {head: one.logprobs(packed, 1.0, entropy=False)[0] for head, one in networks.items()}
    times: dict[Precision, list[float]] = {head: [] for head in HEADS}
    for number in range(options.rounds + 1):
        for head in HEADS:
            seconds = seconds_of(networks[head], packed)
            if number:  # the first warms up
                times[head].append(seconds)
    return [
        {
            "head": head,
            "to_fp32_nats": float((found[head] - truth).abs().mean()),
            "to_engine_nats": float((found[head] - sampler).abs().mean()),
            "over_0p1_frac": float(((found[head] - sampler).abs() > 0.1).float().mean()),
            "forward_backward_s": statistics.median(times[head]),
        }
        for head in HEADS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--completions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options)
    print(f"{'head':<6}{'|Δ| to fp32':>13}{'|Δ| to engine':>15}{'> 0.1':>8}{'forward + backward':>20}")
    for row in rows:
        print(
            f"{row['head']:<6}{row['to_fp32_nats']:>13.5f}{row['to_engine_nats']:>15.5f}{row['over_0p1_frac']:>8.2%}"
            f"{row['forward_backward_s']:>18.2f} s"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
