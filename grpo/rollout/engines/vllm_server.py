"""vLLM's side of the pipe that `grpo.rollout.engines.vllm_client` holds: run as a module, in a process of its own."""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo.records import Finish, Floats, TokenIds
from grpo.rollout.engines.protocol import Request, Sampling, Written
from grpo.rollout.engines.tensor_names import tensor_names
from rewards.workers.process import connect_to_parent

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from vllm import LLM
    from vllm.logprobs import FlatLogprobs
    from vllm.outputs import CompletionOutput

_DERIVED = ("lm_head.weight", "rotary_emb.inv_freq")
"""Tensors that some folders hold and others leave out, since they can be made of the rest: a tied output head, and
the rotary embedding's frequencies."""


class Server:
    """One ``vllm.LLM`` and the verbs that the trainer may say to it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm: LLM = LLM(**arguments)
        self._tensor_names = required_tensors(Path(arguments["model"]))
        self._num_loads = 0

    def start(self) -> dict[str, str]:
        import vllm

        return {"name": "vllm", "version": vllm.__version__}

    def load(self, folder: str) -> None:
        """Order matters: check what came, load it, mend what the loader leaves, then drop the cached prefixes."""
        differing = self._tensor_names ^ required_tensors(Path(folder))
        if differing:
            raise ValueError(f"weights={folder}: not the model's set of tensors; they differ in {sorted(differing)}")
        engine = self._llm.llm_engine
        engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        engine.apply_model(refresh_head)
        if not engine.reset_prefix_cache():
            raise RuntimeError("prefix cache: the engine refused to drop it after new weights came in")
        self._num_loads += 1

    def logprobs(self, token_ids: Sequence[TokenIds]) -> list[Floats]:
        from vllm import SamplingParams

        params = SamplingParams(temperature=1.0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False)
        prompts = [{"prompt_token_ids": ids.tolist()} for ids in token_ids]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        # The first token of a prompt has no log-prob, and its place is empty.
        return [
            first_logps(output.prompt_logprobs[1:], ids[1:]) for output, ids in zip(outputs, token_ids, strict=True)
        ]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        engine = self._llm.llm_engine
        for number, request in enumerate(requests):
            prompt = {"prompt_token_ids": request.token_ids.tolist(), "cache_salt": f"load {self._num_loads}"}
            for index, seed in enumerate(request.seeds):
                engine.add_request(f"{number}:{index}", dict(prompt), sampling_params(sampling, seed))
        written: dict[int, dict[int, Written]] = defaultdict(dict)
        while engine.has_unfinished_requests():
            for output in engine.step():
                number, index = map(int, output.request_id.split(":"))
                written[number][index] = to_written(output.outputs[0])
                if len(written[number]) == len(requests[number].seeds):
                    group = written.pop(number)
                    yield number, tuple(group[index] for index in sorted(group))


def sampling_params(sampling: Sampling, seed: int) -> Any:
    """vLLM's parameters for one completion; every one that could be filled from elsewhere is set here.

    One output leaves the engine for each completion, when it is finished, and its log-probs lie in one flat list:
    otherwise vLLM makes an output object for every sequence at every token, and a dict for every log-prob.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

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
        # Of the sampled token alone.
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
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


def required_tensors(folder: Path) -> frozenset[str]:
    """Names of the tensors that every folder of the same model has in its safetensors files."""
    return frozenset(name for name in tensor_names(folder) if not name.endswith(_DERIVED))


def to_written(output: CompletionOutput) -> Written:
    """What vLLM wrote, as arrays: 8 bytes a token. `output` has flat log-probs, at least one for each token."""
    token_ids = np.array(output.token_ids, np.int32)
    return Written(token_ids, first_logps(output.logprobs, token_ids), to_finish(output.finish_reason))


def first_logps(flat: FlatLogprobs, token_ids: TokenIds) -> Floats:
    """The first log-prob at each place, which vLLM has for the token that stands there, shape (T,).

    Raises ValueError where the log-probs are of other tokens than `token_ids`.
    """
    first = np.array(flat.start_indices, np.int64)
    if not np.array_equal(np.array(flat.token_ids, np.int32)[first], token_ids):
        raise ValueError("vLLM: the log-probs of a sequence are not those of its tokens")
    return np.array(flat.logprobs, np.float32)[first]


def to_finish(reason: str | None) -> Finish:
    """vLLM's finish reason in our words: whatever is neither a stop nor the length limit cut the completion short."""
    match reason:
        case "stop" | "length":
            return reason
    return "abort"


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
