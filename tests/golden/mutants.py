"""Small faults that these tests must find: each an edit of one line of the trainer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old`, found once in `file`, becomes `new`; then the tests in `killer` must fail."""

    name: str
    file: str
    old: str
    new: str
    killer: str


def _mutant(name: str, file: str, old: str, new: str, killer: str) -> Mutant:
    return Mutant(name, f"grpo/{file}.py", old, new, f"tests/golden/test_{killer}.py")


def _reward_mutant(name: str, file: str, old: str, new: str, killer: str) -> Mutant:
    return Mutant(name, f"rewards/{file}.py", old, new, f"tests/rewards/test_{killer}.py")


MUTANTS = (
    _mutant("no clip", "losses", "-torch.minimum(free, bounded)", "-free", "losses"),
    _mutant("the larger of the two", "losses", "-torch.minimum(free", "-torch.maximum(free", "losses"),
    _mutant("wrong sign of the objective", "losses", "return -torch.minimum", "return torch.minimum", "losses"),
    _mutant(
        "bounds swapped",
        "losses",
        "clamp(ratio, 1 - clip_low, 1 + clip_high)",
        "clamp(ratio, 1 - clip_high, 1 + clip_low)",
        "losses",
    ),
    _mutant(
        "KL reversed", "losses", "difference = ref_logp - policy_logp", "difference = policy_logp - ref_logp", "losses"
    ),
    _mutant("population deviation", "advantages", "/ (len(centred) - 1)", "/ len(centred)", "advantages"),
    _mutant(
        "floor inside the root",
        "advantages",
        "math.sqrt(variance) + STD_FLOOR",
        "math.sqrt(variance + STD_FLOOR)",
        "advantages",
    ),
    _mutant(
        "dead by the mean",
        "advantages",
        "all(reward == rewards[0] for",
        "all(reward == sum(rewards) / len(rewards) for",
        "advantages",
    ),
    _mutant("wrong sign of the advantage", "advantages", "[reward - mean for", "[mean - reward for", "advantages"),
    _mutant(
        "any reward passes", "advantages", "if not all(math.isfinite", "if False and all(math.isfinite", "advantages"
    ),
    _mutant(
        "no opinion is a bad one",
        "advantages",
        "[value for value in part if value is not None]",
        "[value or 0.0 for value in part]",
        "advantages",
    ),
    _mutant(
        "weights of parts forgotten",
        "advantages",
        "[weights[name] * value for value in part_adv",
        "[value for value in part_adv",
        "lessons",
    ),
    _mutant("weights of a sum forgotten", "advantages", "[weights[name] * value if", "[value if", "advantages"),
    _mutant(
        "a weak completion decides as much",
        "advantages",
        "math.fsum(size * abs(pull[name])",
        "math.fsum(abs(pull[name])",
        "advantages",
    ),
    _mutant("pulls cancel in a share", "advantages", "size * abs(pull[name])", "size * pull[name]", "advantages"),
    _mutant(
        "each group has a deviation of its own",
        "lessons",
        "zip(scored, sums, pulls, strict=True)",
        "zip(scored, sums, pulls, strict=True)\n        for deviation in [batch_deviation(row)]",
        "lessons",
    ),
    _mutant("no batch in the advantage of parts", "lessons", "value / deviation for", "value for", "lessons"),
    _mutant(
        "parts where the sum is wanted", "lessons", 'advantage_of == "parts"', 'advantage_of != "parts"', "lessons"
    ),
    _mutant("no temperature", "logprobs", ".float() / temperature", ".float()", "logprobs"),
    _mutant("normalised in half precision", "logprobs", "head(hidden).float()", "head(hidden)", "logprobs"),
    _mutant(
        "no weight for sequences",
        "batch",
        '1 / len(completion.token_ids) if settings.normalise == "sequence" else 1.0',
        "1.0",
        "batch",
    ),
    _mutant(
        "dead groups not counted",
        "batch",
        "lengths = [len(one.token_ids) for lesson in lessons for one",
        "lengths = [len(one.token_ids) for lesson in lessons if not lesson.is_dead for one",
        "batch",
    ),
    _mutant("dead groups have no KL", "batch", "if settings.kl_weight == 0:", "if True:", "batch"),
    _mutant(
        "completions lost in a cut",
        "batch",
        "taken, used = [], 0\n        taken",
        "taken, used = [], 0\n            continue\n        taken",
        "batch",
    ),
    _mutant("tokens see what follows", "packing", "same_path).tril()", "same_path)", "packing"),
    _mutant("tokens do not see themselves", "packing", ".tril()", ".tril(-1)", "packing"),
    _mutant("completions see each other", "packing", "(same_tree & same_path)", "same_tree", "packing"),
    _mutant(
        "predictors one late",
        "packing",
        "*range(len(ids), len(ids) + len(tokens))",
        "*range(len(ids) + 1, len(ids) + len(tokens) + 1)",
        "packing",
    ),
    _mutant(
        "positions count the whole row",
        "packing",
        "range(first_position, first_position + len(tokens))",
        "range(len(positions), len(positions) + len(tokens))",
        "packing",
    ),
    _mutant(
        "end token left out",
        "policy",
        "loss = (packed.weights * losses)",
        "loss = (packed.weights * losses * (packed.targets != 0))",
        "policy_update",
    ),
    _mutant("mean for sum", "policy", "losses).sum() / denominator", "losses).mean()", "policy_update"),
    _mutant(
        "denominator of the micro-batch",
        "policy",
        "losses).sum() / denominator",
        "losses).sum() / len(losses)",
        "policy_update",
    ),
    _mutant(
        "sampler as old policy",
        "policy",
        "proximal_logps = logps.detach()",
        "proximal_logps = packed.sampler_logps",
        "policy_update",
    ),
    _mutant(
        "old policy forgotten",
        "policy",
        "self._accumulate(packed, proximal_logps[index],",
        "self._accumulate(packed, None,",
        "policy_update",
    ),
    _mutant("sampling temperature forgotten", "policy", "self._settings.rollout.temperature,", "1.0,", "policy_update"),
    _mutant("bad gradients pass", "policy", "if not skipped:", "if True:", "policy_update"),
    _mutant("bad gradients stay", "policy", "self._optimiser.zero_grad(set_to_none=True)", "pass", "policy_update"),
    _mutant("warm-up from nothing", "policy", "settings.lr * (step + 1)", "settings.lr * step", "policy_update"),
    _mutant("gains decay", "policy", '"weight_decay": 0.0}', '"weight_decay": weight_decay}', "policy_update"),
    _mutant("loss summed over passes", "tally", '["loss"] / self._num_passes', '["loss"]', "metrics"),
    _mutant(
        "gap of the other direction", "tally", "(torch.exp(gap) - gap - 1)", "(torch.exp(-gap) + gap - 1)", "metrics"
    ),
    _mutant("ties go to the right answer", "statistics", "/ len(leaders)", "/ 1", "statistics"),
    _reward_mutant("short wrong answers are paid", "length", "else min(0.0, value)", "else value", "reward_length"),
    _reward_mutant(
        "cosine not clamped",
        "length",
        "min(1.0, one.num_tokens / options.max_tokens)",
        "one.num_tokens / options.max_tokens",
        "reward_length",
    ),
    _reward_mutant("no floor for overlong", "length", "-min(1.0, max(0.0, ramp))", "-max(0.0, ramp)", "reward_length"),
    _reward_mutant(
        "only too long is off target", "l1", "abs(target - one.num_tokens)", "(target - one.num_tokens)", "reward_l1"
    ),
    _reward_mutant("no clip of the budget", "l1", "min(1.0, max(0.0, budget))", "min(1.0, budget)", "reward_l1"),
    _reward_mutant(
        "repetition praised",
        "repetition",
        "return (1 - unique / total)",
        "return (unique / total)",
        "reward_repetition",
    ),
    _reward_mutant(
        "a number may be used again",
        "checkers/countdown",
        "tuple(sorted(parser.used))",
        "tuple(sorted({*parser.used}))",
        "checkers",
    ),
    _reward_mutant(
        "any decimal will do",
        "checkers/numbers",
        "self.num_digits >= min_digits",
        "self.num_digits > 0",
        "answer_policy",
    ),
    _reward_mutant(
        "order of lists the wrong way round",
        "checkers/compare",
        'list_order == "same" and not num_sets',
        'list_order == "any" and not num_sets',
        "answer_policy",
    ),
    _reward_mutant(
        "a dropped unit is wrong",
        "checkers/scalars",
        "if is_needed or (unit and other):",
        "if is_needed or unit or other:",
        "answer_policy",
    ),
)
