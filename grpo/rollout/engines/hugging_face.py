"""The engine for machines without vLLM: transformers' own `generate`, on a copy of the model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from grpo.recipe.sections import RolloutSection
from grpo.rollout.engines.protocol import Request, Sampling, Written, derive_seed


class TransformersEngine:
    """Slow and dependable. Completions of one request are one batch, drawn from one seeded generator."""

    def __init__(self, folder: Path, settings: RolloutSection, *, device: torch.device) -> None:
        dtype = getattr(torch, settings.dtype)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        self._model.generation_config = transformers.GenerationConfig()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._device = device
        self.description = {"name": "transformers", "version": transformers.__version__}

    def load(self, folder: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(file)
        left = self._model.load_state_dict(tensors, strict=False)
        tied = set(self._model.all_tied_weights_keys)
        missing = set(left.missing_keys) - tied
        if missing or left.unexpected_keys:
            raise ValueError(
                f"weights={folder}: not the model's set of tensors; missing {sorted(missing)}, "
                f"unknown {sorted(left.unexpected_keys)}"
            )

    @torch.inference_mode()
    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        answers = []
        for ids in token_ids:
            row = torch.tensor([list(ids)], device=self._device)
            log_probs = self._model(input_ids=row).logits[0, :-1].float().log_softmax(-1)
            answers.append(log_probs.gather(-1, row[0, 1:, None]).squeeze(-1).tolist())
        return answers

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        for number, request in enumerate(requests):
            yield number, self._write(request, sampling)

    def close(self) -> None:
        """Nothing was started."""

    @torch.inference_mode()
    def _write(self, request: Request, sampling: Sampling) -> tuple[Written, ...]:
        prompt = torch.tensor([request.token_ids] * len(request.seeds), device=self._device)
        recorder = _Recorder(sampling.temperature)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(*request.seeds))
            rows = self._model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=sampling.temperature > 0,
                top_k=0,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=list(sampling.end_ids),
                pad_token_id=sampling.end_ids[0],
                stop_strings=list(sampling.stop) or None,
                tokenizer=self._tokenizer,
                logits_processor=LogitsProcessorList([recorder]),
            )
        new = rows[:, prompt.shape[1] :]
        logps = recorder.finish(rows)
        return tuple(self._cut(ids, row, sampling) for ids, row in zip(new.tolist(), logps.tolist(), strict=True))

    def _cut(self, ids: list[int], logps: list[float], sampling: Sampling) -> Written:
        """Drop what was padded after the end: `generate` fills finished rows up to the longest."""
        for position, token in enumerate(ids):
            if token in sampling.end_ids or self._stopped(ids[: position + 1], sampling.stop):
                return Written(tuple(ids[: position + 1]), tuple(logps[: position + 1]), "stop")
        return Written(tuple(ids), tuple(logps), "length")

    def _stopped(self, ids: list[int], stop: tuple[str, ...]) -> bool:
        if not stop:
            return False
        text = self._tokenizer.decode(ids)
        return any(string in text for string in stop)


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
