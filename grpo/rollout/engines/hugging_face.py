"""The engine for machines without vLLM: transformers' own `generate`, on a copy of the model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from grpo.recipe.sections import RolloutSection
from grpo.records import Floats, TokenIds
from grpo.rollout.engines.protocol import Request, Sampling, Written, derive_seed
from grpo.rollout.engines.tensor_names import tensor_names, weight_files


class TransformersEngine:
    """Needs nothing that is hard to install, and is slow: completions of one request are one batch, drawn from one
    seeded generator, and the next request waits for it."""

    def __init__(self, folder: Path, settings: RolloutSection, *, device: torch.device) -> None:
        dtype = getattr(torch, settings.dtype)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.model.generation_config = transformers.GenerationConfig()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._device = device
        self.description = {"name": "transformers", "version": transformers.__version__}

    def load(self, folder: Path) -> None:
        own, stored = set(self.model.state_dict()), tensor_names(folder)
        missing = own - stored - set(self.model.all_tied_weights_keys)
        if missing or stored - own:
            raise ValueError(
                f"weights={folder}: not the model's set of tensors; missing {sorted(missing)}, "
                f"unknown {sorted(stored - own)}"
            )
        for file in weight_files(folder):
            self.model.load_state_dict(load_file(file), strict=False)

    @torch.inference_mode()
    def logprobs(self, token_ids: Sequence[TokenIds]) -> list[Floats]:
        answers = []
        for ids in token_ids:
            row = torch.tensor(np.asarray(ids, np.int64), device=self._device)[None]
            log_probs = self.model(input_ids=row).logits[0, :-1].float().log_softmax(-1)
            answers.append(log_probs.gather(-1, row[0, 1:, None]).squeeze(-1).cpu().numpy())
        return answers

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        stops = StopStringCriteria(self._tokenizer, list(sampling.stop)) if sampling.stop else None
        for number, request in enumerate(requests):
            yield number, self._write(request, sampling, stops)

    def close(self) -> None:
        """Nothing was started."""

    @torch.inference_mode()
    def _write(self, request: Request, sampling: Sampling, stops: StopStringCriteria | None) -> tuple[Written, ...]:
        prompt = torch.tensor(np.asarray(request.token_ids, np.int64), device=self._device)
        prompt = prompt.repeat(len(request.seeds), 1)
        recorder = _Recorder(sampling.temperature)
        ends = _Ends(prompt, sampling.end_ids, stops)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(*request.seeds))
            rows = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=sampling.temperature > 0,
                top_k=0,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=list(sampling.end_ids),
                pad_token_id=sampling.end_ids[0],
                logits_processor=LogitsProcessorList([recorder]),
                stopping_criteria=StoppingCriteriaList([ends]),
            )
        return _cut(rows[:, prompt.shape[1] :], recorder.finish(rows), ends.lengths)


class _Recorder(LogitsProcessor):  # type: ignore[misc]
    """Applies the temperature and keeps the log-prob of each token that was then drawn.

    A token is known one call after its distribution was, so each call looks one position back.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature or 1.0
        self._log_probs: Tensor | None = None
        self._chosen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._look_back(input_ids)
        scores = scores.float() / self._temperature
        self._log_probs = scores.log_softmax(-1)
        return scores

    def finish(self, rows: Tensor) -> Tensor:
        """Log-probs of all new tokens, shape (rows, new tokens)."""
        self._look_back(rows)
        return torch.stack(self._chosen, dim=1)

    def _look_back(self, rows: Tensor) -> None:
        if self._log_probs is not None:
            self._chosen.append(self._log_probs.gather(-1, rows[:, -1:]).squeeze(-1))


class _Ends(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at an end token or at a stop string in its new text, and remembers after how many tokens.

    `generate` goes on filling the rows that have ended until the longest one has: what it wrote there is no part of
    the completion, and where a completion ends is known here, without decoding it again.
    """

    def __init__(self, prompt: Tensor, end_ids: Sequence[int], stops: Any | None) -> None:
        self._prompt_length = prompt.shape[1]
        self._end_ids = torch.tensor(end_ids, device=prompt.device)
        self._stops = stops
        self.lengths = torch.zeros(len(prompt), dtype=torch.long, device=prompt.device)
        """New tokens of each row that has ended; 0 for the others."""

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **options: object) -> Tensor:
        new = input_ids[:, self._prompt_length :]
        ended = torch.isin(new[:, -1], self._end_ids)
        if self._stops is not None:
            ended |= self._stops(new, scores)
        self.lengths = torch.where((self.lengths == 0) & ended, new.shape[1], self.lengths)
        return self.lengths > 0


def _cut(rows: Tensor, logps: Tensor, lengths: Tensor) -> tuple[Written, ...]:
    """One completion of each row: as many tokens as `lengths` says, or all of them where that is 0."""
    token_ids, values = rows.int().cpu().numpy(), logps.cpu().numpy()
    return tuple(
        Written(ids[: length or None].copy(), known[: length or None].copy(), "stop" if length else "length")
        for ids, known, length in zip(token_ids, values, lengths.tolist(), strict=True)
    )
