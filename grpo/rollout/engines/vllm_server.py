"""The engine's side of `grpo.rollout.engines.vllm_client`: run as a module in a process of its own, never imported."""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo.rollout.engines.protocol import Request, Sampling, Written
from rewards.workers.process import connect_to_parent

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from vllm import LLM


_DERIVED = ("lm_head.weight", "rotary_emb.inv_freq")


class Server:
    """One ``vllm.LLM`` and the verbs that the trainer may say to it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm: LLM = LLM(**arguments)
        self._tensor_names = tensor_names(Path(arguments["model"]))
        self._num_loads = 0

    def start(self) -> dict[str, str]:
        import vllm

        return {"name": "vllm", "version": vllm.__version__}

    def load(self, folder: str) -> None:
        """Order matters: check what came, load it, mend what the loader leaves, then drop the cached prefixes."""
        missing = self._tensor_names ^ tensor_names(Path(folder))
        if missing:
            raise ValueError(f"weights={folder}: not the model's set of tensors; they differ in {sorted(missing)}")
        engine = self._llm.llm_engine
        engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        engine.apply_model(refresh_head)
        if not engine.reset_prefix_cache():
            raise RuntimeError("prefix cache: the engine refused to drop it after new weights came in")
        self._num_loads += 1

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        from vllm import SamplingParams

        params = SamplingParams(temperature=1.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompts = [{"prompt_token_ids": list(ids)} for ids in token_ids]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        return [
            [entry[token].logprob for entry, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]
            for output, ids in zip(outputs, token_ids, strict=True)
        ]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        engine = self._llm.llm_engine
        for number, request in enumerate(requests):
            prompt = {"prompt_token_ids": list(request.token_ids), "cache_salt": f"load {self._num_loads}"}
            for index, seed in enumerate(request.seeds):
                engine.add_request(f"{number}:{index}", dict(prompt), sampling_params(sampling, seed))
        written: dict[int, dict[int, Written]] = defaultdict(dict)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if not output.finished:
                    continue
                number, index = map(int, output.request_id.split(":"))
                written[number][index] = _written(output.outputs[0])
                if len(written[number]) == len(requests[number].seeds):
                    group = written.pop(number)
                    yield number, tuple(group[index] for index in sorted(group))


def sampling_params(sampling: Sampling, seed: int) -> Any:
    """vLLM's parameters for one completion; every one that could be filled from elsewhere is set here."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        repetition_penalty=1.0,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=list(sampling.end_ids),
        stop=list(sampling.stop),
        include_stop_str_in_output=True,
        # A stop string can only be found in text.
        detokenize=bool(sampling.stop),
        skip_special_tokens=False,
        logprobs=0,
        seed=seed,
    )


def refresh_head(model: Any) -> None:
    """Pack a tied output head again after a reload.

    On CPU, `reload_weights` leaves the packed copy of the old embeddings in place where the head shares them.
    """
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if method is not None and hasattr(method, "process_weights_after_loading"):
        method.process_weights_after_loading(head)


def tensor_names(folder: Path) -> frozenset[str]:
    """Names of all tensors in a folder's safetensors files, read from their headers alone.

    Those that some folders hold and others derive (a tied output head, rotary tables) are left out.
    """
    from safetensors import safe_open

    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names.update(name for name in tensors.keys() if not name.endswith(_DERIVED))  # noqa: SIM118
    return frozenset(names)


def _written(output: Any) -> Written:
    token_ids = tuple(output.token_ids)
    logps = tuple(entry[token].logprob for entry, token in zip(output.logprobs, token_ids, strict=True))
    return Written(token_ids, logps, "stop" if output.finish_reason == "stop" else "length")


def serve(connection: Connection, make_server: Callable[[dict[str, Any]], Server] = Server) -> None:
    """Answer one verb after another until the trainer hangs up. A failure is an answer too."""
    server: Server | None = None
    while True:
        try:
            verb, argument = connection.recv()
        except EOFError:
            return
        try:
            if server is None:
                server = make_server(argument)
                connection.send(("start", server.start()))
            elif verb == "generate":
                for reply in server.generate(*argument):
                    connection.send((verb, reply))
            else:
                connection.send((verb, getattr(server, verb)(argument)))
        except Exception:
            connection.send(("error", traceback.format_exc()))


if __name__ == "__main__":
    # Under its real name, so that what it hands to vLLM's own workers can be found there.
    from grpo.rollout.engines import vllm_server

    vllm_server.serve(connect_to_parent())
