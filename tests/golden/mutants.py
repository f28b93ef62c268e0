"""Small faults that these tests must find: each an edit of one line of the trainer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old`, which stands once in all files of the folder `room`, becomes `new`; then the tests in `killer` must fail.

    A file may be renamed, or cut in two, without a change here.
    """

    name: str
    room: str
    old: str
    new: str
    killer: str


def _mutant(name: str, room: str, old: str, new: str, killer: str) -> Mutant:
    return Mutant(name, f"grpo/{room}", old, new, f"tests/golden/test_{killer}.py")


def _objective_mutant(name: str, old: str, new: str, killer: str = "objectives") -> Mutant:
    return _mutant(name, "objectives", old, new, killer)


def _loop_mutant(name: str, old: str, new: str, killer: str) -> Mutant:
    return Mutant(name, "grpo/rollout", old, new, f"tests/loop/test_{killer}.py")


def _reward_mutant(name: str, room: str, old: str, new: str, killer: str) -> Mutant:
    return Mutant(name, f"rewards/{room}", old, new, f"tests/rewards/test_{killer}.py")


MUTANTS = (
    _objective_mutant("no clip", "return torch.minimum(free, bounded)", "return free"),
    _objective_mutant("the larger of the two", "return torch.minimum(", "return torch.maximum("),
    _objective_mutant("wrong sign of the objective", "return -objective", "return objective"),
    _objective_mutant(
        "bounds swapped",
        "ratio.clamp(1 - clip_low, 1 + clip_high)",
        "ratio.clamp(1 - clip_high, 1 + clip_low)",
    ),
    _objective_mutant("dual clip of praise", "tokens.advantage < 0, ", "tokens.advantage > 0, "),
    _objective_mutant(
        "product for the geometric mean",
        "torch.exp(tokens.means(tokens.policy_logp - tokens.proximal_logp))",
        "torch.exp(tokens.sums(tokens.policy_logp - tokens.proximal_logp))",
    ),
    _objective_mutant(
        "a token's ratio moves its neighbours",
        "(tokens.policy_logp - tokens.proximal_logp).detach()",
        "(tokens.policy_logp - tokens.proximal_logp)",
    ),
    _objective_mutant("weight not held constant", "tokens.ratio.detach()", "tokens.ratio"),
    _objective_mutant("weight of the next token", "return -weight * tokens", "return -weight.roll(1) * tokens"),
    _objective_mutant("half the weights clipped", ".clamp(low, high)", ".clamp(max=high)"),
    _objective_mutant("no ratio on later passes", "return -tokens.ratio *", "return -tokens.policy_logp *"),
    _objective_mutant("wrong sign of tau", "(tau / 2 * tokens", "(-tau / 2 * tokens"),
    _objective_mutant("tau not halved", "(tau / 2 * tokens", "(tau * tokens"),
    _objective_mutant("each token by itself", "tokens.sums(log_ratio)", "log_ratio"),
    _objective_mutant("engine for old policy", "logp - self.proximal_logp", "logp - self.sampler_logp"),
    _objective_mutant(
        "one length for all",
        "return self.sums(torch.ones_like(self.advantage))",
        "return self.sums(torch.ones_like(self.advantage))[:1]",
    ),
    _objective_mutant("sums of the neighbour", "totals[self.completion]", "totals[self.completion - 1]"),
    _objective_mutant(
        "KL reversed", "torch.expm1(ref_logp - policy_logp)", "torch.expm1(policy_logp - ref_logp)", "kl"
    ),
    _objective_mutant("wrong sign in k3", "policy_logp) - (ref_logp", "policy_logp) + (ref_logp", "kl"),
    _objective_mutant("k2 not halved", ".square() / 2", ".square()", "kl"),
    _objective_mutant("wrong sign of k1", "return policy_logp - ref_logp", "return ref_logp - policy_logp", "kl"),
    _objective_mutant("policy for old policy", "(tokens.proximal_logp - ", "(tokens.policy_logp - ", "corrections"),
    _objective_mutant(
        "gap reversed",
        "(tokens.proximal_logp - tokens.sampler_logp)",
        "(tokens.sampler_logp - tokens.proximal_logp)",
        "corrections",
    ),
    _objective_mutant(
        "mask bounds swapped",
        "(ratio >= low) & (ratio <= high)",
        "(ratio >= high) | (ratio <= low)",
        "corrections",
    ),
    _objective_mutant("mask without a floor", "(ratio >= low) & (ratio <= high)", "(ratio <= high)", "corrections"),
    _objective_mutant(
        "kept tokens weigh one",
        "high), ratio, torch",
        "high), torch.ones_like(ratio), torch",
        "corrections",
    ),
    _objective_mutant(
        "mean for the product",
        "_masked(torch.exp(tokens.sums(",
        "_masked(torch.exp(tokens.means(",
        "corrections",
    ),
    _objective_mutant(
        "lifted to the bound",
        "return torch.exp(_gap(tokens)).clamp(max=high)",
        "return torch.exp(_gap(tokens)).clamp(min=high)",
        "corrections",
    ),
    _mutant("left out of the group too", "advantages", "* len(rewards) / (len(rewards) - 1)", "* 1", "advantages"),
    _mutant(
        "charged for what came before",
        "advantages",
        "np.cumsum(costs[::-1], dtype=np.float64)[::-1]",
        "np.cumsum(costs, dtype=np.float64)",
        "advantages",
    ),
    _mutant(
        "KL is a reward",
        "advantages",
        "(reward - one.total - mean) / deviation",
        "(reward + one.total - mean) / deviation",
        "compute_advantages",
    ),
    _mutant(
        "KL raises rewards",
        "advantages",
        "tuple(value - one.total for value",
        "tuple(value + one.total for value",
        "compute_advantages",
    ),
    _mutant(
        "no baseline",
        "advantages",
        "[group_mean(group.rewards) for group in groups], pulls",
        "[group.rewards for group in groups], pulls",
        "compute_advantages",
    ),
    _mutant(
        "dead groups shifted",
        "advantages",
        "if is_dead(one.summary.rewards) else one",
        "if False else one",
        "compute_advantages",
    ),
    _mutant(
        "each group is its own batch",
        "advantages",
        "in zip(group.lengths, row, charge, strict=True)",
        "in zip(group.lengths, row, charge, strict=True) if group is groups[0]",
        "compute_advantages",
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
        "any reward passes",
        "advantages",
        "if not all(math.isfinite(reward)",
        "if False and all(math.isfinite(reward)",
        "advantages",
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
        "compute_advantages",
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
        "advantages",
        "in zip(groups, sums, pulls, strict=True)",
        "in zip(groups, sums, pulls, strict=True) for deviation in [batch_deviation(row)]",
        "compute_advantages",
    ),
    _mutant(
        "no batch in the advantage of parts",
        "advantages",
        "[value / deviation for value in row]",
        "[value for value in row]",
        "compute_advantages",
    ),
    _mutant(
        "parts where the sum is wanted",
        "advantages",
        'if advantage == "gdpo"',
        'if advantage != "gdpo"',
        "compute_advantages",
    ),
    _mutant("no temperature", "model", ".float() / temperature", ".float()", "logprobs"),
    _mutant("no temperature on the way back", "model", "by_z.div_(ctx.temperature)", "by_z", "logprobs"),
    _mutant("another norm on the way back", "model", ".float().div_(ctx.temperature)", ".float()", "logprobs"),
    _mutant("normalised in half precision", "model", ".float() / temperature", " / temperature", "logprobs"),
    _mutant(
        "entropy added up wrongly",
        "model",
        "total.log() - torch.linalg.vecdot",
        "total.log() + torch.linalg.vecdot",
        "logprobs",
    ),
    _mutant("entropy pulls the other way", "model", "pull = pull - by_entropy", "pull = pull + by_entropy", "logprobs"),
    _mutant(
        "the target itself left out",
        "model",
        "by_z.scatter_add_(-1, targets[block, None], by_logp[block, None])",
        "pass",
        "logprobs",
    ),
    _mutant(
        "a chunk made again from other rows",
        "model",
        "logits is None:\n                logits = _logits(hidden[rows]",
        "logits is None:\n                logits = _logits(hidden[rows].flip(0)",
        "logprobs",
    ),
    _mutant(
        "the head learns from the last chunk",
        "model",
        "        total += product(left, right)",
        "        total.copy_(product(left, right))",
        "logprobs",
    ),
    _mutant(
        "products rounded where they need not be",
        "model",
        "return torch.mm(left, right, out_dtype=torch.float32)",
        "return (left @ right).float()",
        "head_precision",
    ),
    _mutant(
        "the head's gradient rounded to half precision",
        "model",
        "grad_weight = torch.zeros_like(weight, dtype=torch.float32)",
        "grad_weight = torch.zeros_like(weight)",
        "head_precision",
    ),
    _mutant(
        "half precision all the same", "model", 'precision == "fp32" else', 'precision == "" else', "head_precision"
    ),
    _mutant(
        "a head of another precision", "model", "precision=self._settings.head", 'precision="bf16"', "head_precision"
    ),
    _mutant(
        "entropies asked for or not",
        "model",
        "entropy=entropy,\n                precision",
        "precision",
        "head_precision",
    ),
    _mutant("weights counted without biases", "model", "return biases + self", "return self", "memory"),
    _mutant("a norm keeps its input alone", "model", "return 2 * FP32 * width + FP32", "return FP32 * width", "memory"),
    _mutant("one moment", "model", "optimiser=2 * FP32 * trained", "optimiser=FP32 * trained", "memory"),
    _mutant("autocast copies nothing", "model", "return BF16 * (shape.layers", "return 0 * (shape.layers", "memory"),
    _mutant("the bias learns from the last chunk", "model", "grad_bias += logits", "grad_bias = logits", "logprobs"),
    _mutant("all logits wait", "model", "keeps = size_bytes <= room", "keeps = True", "logprobs"),
    _mutant(
        "logits wait for nothing",
        "model",
        "room = saved_bytes if torch.is_grad_enabled() else 0",
        "room = saved_bytes",
        "logprobs",
    ),
    _mutant(
        "tokens see what follows",
        "model",
        ".triu(num_keys - length + 1)",
        ".triu(num_keys - length + 2)",
        "attention",
    ),
    _mutant(
        "tokens do not see themselves",
        "model",
        ".triu(num_keys - length + 1)",
        ".triu(num_keys - length)",
        "attention",
    ),
    _mutant("no scale", "model", "(queries * scale).reshape", "queries.reshape", "attention"),
    _mutant("no scale in the fused kernel", "model", "attn_mask=bias, scale=scale)", "attn_mask=bias)", "attention"),
    _mutant("the model's scale forgotten", "model", "if scaling is None else scaling", "", "attention"),
    _mutant(
        "heads paired with other keys",
        "model",
        "states.repeat_interleave(shared, 1)",
        "states.repeat(1, shared, 1, 1)",
        "attention",
    ),
    _mutant(
        "the mask of another head's row",
        "model",
        "bias.repeat(repeats, 1)",
        "bias.repeat_interleave(repeats, 0)",
        "attention",
    ),
    _mutant(
        "the prompt after the branch",
        "model",
        "[prompt.expand(self._num, -1, -1, -1), own]",
        "[own, prompt.expand(self._num, -1, -1, -1)]",
        "attention",
    ),
    _mutant(
        "branches filled one row off",
        "model",
        "starts[:, None] + within, max(",
        "starts[:, None] + within + 1, max(",
        "attention",
    ),
    _mutant(
        "branches emptied by their own length",
        "model",
        "(within < sizes[:, None]).reshape(-1)",
        "(within <= sizes[:, None]).reshape(-1)",
        "attention",
    ),
    _mutant(
        "filling learns from the first rows",
        "model",
        "grads[0].index_select(0, ctx.saved_tensors[0]), None, None",
        "grads[0][: len(ctx.saved_tensors[0])], None, None",
        "attention",
    ),
    _mutant(
        "what was emptied goes back elsewhere",
        "model",
        "index_copy_(0, ctx.saved_tensors[0], grads[0])",
        "index_copy_(0, ctx.saved_tensors[0].flip(0), grads[0])",
        "attention",
    ),
    _mutant(
        "completions see other completions",
        "model",
        "(key >= own_start[query])",
        "(key >= prompt_start[query])",
        "block_mask",
    ),
    _mutant("tokens see what follows on a GPU", "model", " & (key <= query)", "", "block_mask"),
    _mutant("trees see earlier trees", "model", "(key >= prompt_start[query]) & ", "", "block_mask"),
    _mutant("branches see no prompt", "model", "return in_own | in_prompt", "return in_own", "block_mask"),
    _mutant(
        "blocks before a segment seen",
        "model",
        "(own < stop) & (lasts",
        "(lasts",
        "block_mask",
    ),
    _mutant(
        "a block is whole when its last token sees it",
        "model",
        "(firsts[:, None] >= stop - 1)",
        "(lasts[:, None] >= stop - 1)",
        "block_mask",
    ),
    _mutant(
        "a first branch apart from its prompt",
        "model",
        "reach = np.where(prompt_stop == own, prompt, own)",
        "reach = own",
        "block_mask",
    ),
    _mutant(
        "the last block seen whole",
        "model",
        "if segments.num_tokens % BLOCK_TOKENS:",
        "if not segments.num_tokens:",
        "block_mask",
    ),
    _mutant("whole blocks looked at twice", "model", "any_seen & ~all_seen", "any_seen", "block_mask"),
    _mutant("no scale on a GPU", "model", "            scale=scale,\n", "", "attention"),
    _mutant("compiled for each length", "model", "dynamic=True, **compile_options()\n    )", ")", "compiled_attention"),
    _mutant("not compiled, without a word", "model", "fullgraph=True, ", "", "compiled_attention"),
    _mutant(
        "queries in another type",
        "model",
        "queries.to(values.dtype), keys.to(values.dtype)",
        "queries, keys",
        "compiled_attention",
    ),
    _mutant("dropout forgotten", "model", ' + ["dropout"] * bool(dropout)', "", "attention"),
    _mutant(
        "no weight for sequences",
        "batching",
        '1 / len(completion.token_ids) if normalise == "sequence" else 1.0',
        "1.0",
        "batch",
    ),
    _mutant(
        "dead groups not counted",
        "batching",
        "lengths += [credited.summary.lengths[index] for index in learnt]",
        "lengths += [credited.summary.lengths[index] for index in learnt if not credited.is_dead]",
        "batch",
    ),
    _mutant(
        "dead groups have no KL", "batching", '(settings.kl_weight and settings.kl_in == "loss")', "False", "batch"
    ),
    _mutant("dead groups have no entropy", "batching", " or settings.entropy_weight > 0", "", "batch"),
    _mutant(
        "dead groups kept for a KL in the reward",
        "batching",
        '(settings.kl_weight and settings.kl_in == "loss")',
        "settings.kl_weight",
        "batch",
    ),
    _mutant(
        "completions lost in a cut",
        "batching",
        "taken, used = [], summary.prompt_tokens\n        taken",
        "taken, used = [], summary.prompt_tokens\n            continue\n        taken",
        "batch",
    ),
    _mutant(
        "a piece lost in the balance",
        "batching",
        "sorted(pieces, key=lambda piece: piece.cost, reverse=True)",
        "sorted(pieces, key=lambda piece: piece.cost, reverse=True)[1:]",
        "balance",
    ),
    _mutant(
        "the cheapest first",
        "batching",
        "sorted(pieces, key=lambda piece: piece.cost, reverse=True)",
        "sorted(pieces, key=lambda piece: piece.cost)",
        "balance",
    ),
    _mutant("cost ignored", "batching", "(cost + piece.cost, index,", "(cost + piece.num_tokens, index,", "balance"),
    _mutant(
        "budget ignored",
        "batching",
        "(cost + piece.cost, index, room - piece.num_tokens)",
        "(cost + piece.cost, index, room)",
        "balance",
    ),
    _mutant(
        "some ranks have more to do",
        "batching",
        "most = num_ranks * math.ceil(len(packed) / num_ranks)",
        "most = len(packed)",
        "balance",
    ),
    _mutant(
        "predictors one late",
        "batching",
        "np.arange(start - 1, start + length)",
        "np.arange(start, start + length + 1)",
        "packing",
    ),
    _mutant(
        "predicted by the branch before",
        "batching",
        "found[-1][0] = shape.start + shape.prompt_length - 1",
        "pass",
        "packing",
    ),
    _mutant(
        "positions count the whole row",
        "batching",
        "*((shape.prompt_length, one) for one in",
        "*((shape.start + shape.prompt_length, one) for one in",
        "packing",
    ),
    _mutant(
        "branches of whole completions",
        "batching",
        "tuple(len(branch.token_ids) - 1 for",
        "tuple(len(branch.token_ids) for",
        "packing",
    ),
    _mutant(
        "completions of another's length",
        "batching",
        "return np.repeat(np.asarray(values), lengths)",
        "return np.repeat(np.asarray(values), lengths[::-1])",
        "packing",
    ),
    _mutant(
        "predicted by the token before",
        "model",
        "hidden[packed.predictors]",
        "hidden[packed.predictors - 1]",
        "policy_update",
    ),
    _mutant(
        "end token left out",
        "policy",
        "shares = packed.weights / denominator",
        "shares = packed.weights * (packed.targets != 0) / denominator",
        "policy_update",
    ),
    _mutant(
        "mean for sum", "policy", "self.objective(tokens)).sum()", "self.objective(tokens)).mean()", "policy_update"
    ),
    _mutant(
        "denominator of the micro-batch",
        "policy",
        "shares = packed.weights / denominator",
        "shares = packed.weights / len(packed.weights)",
        "policy_update",
    ),
    _mutant(
        "sampler as old policy",
        "policy",
        "return Frozen(logps.detach(), None)",
        "return Frozen(packed.sampler_logps, None)",
        "policy_update",
    ),
    _mutant(
        "old policy forgotten",
        "policy",
        "self._accumulate(packed, known[index],",
        "self._accumulate(packed, None,",
        "policy_update",
    ),
    _mutant(
        "a later batch is its own old policy",
        "policy",
        "known[index] = self._freeze(packed, *found, sums)",
        "self._freeze(packed, *found, sums)",
        "policy_update",
    ),
    _mutant("masked counts as clipped", "policy", " & (trust != 0)", "", "policy_update"),
    _mutant(
        "all groups in each mini-batch",
        "batching",
        "credited_groups[first :: settings.mini_batches]",
        "credited_groups[0 :: settings.mini_batches]",
        "batch",
    ),
    _mutant("correction dropped", "policy", "shares * trust * self", "shares * self", "policy_update"),
    _mutant(
        "dead tokens count as clipped", "policy", "clipped=(clipped & taught).sum()", "clipped=clipped.sum()", "metrics"
    ),
    _mutant("no weight for the KL", "policy", "settings.kl_weight * (shares * kl)", "(shares * kl)", "policy_update"),
    _mutant("the KL has no gradient", "policy", "coefficients = coefficients + torch", "torch", "policy_update"),
    _mutant(
        "entropy pulled down", "policy", "told[entropies] = -settings", "told[entropies] = settings", "policy_update"
    ),
    _mutant(
        "entropy's sign in the loss",
        "policy",
        "loss = loss - settings.entropy_weight",
        "loss = loss + settings.entropy_weight",
        "policy_update",
    ),
    _mutant(
        "no weight for what a KL costs",
        "policy",
        "torch.split(self.settings.update.kl_weight * kl,",
        "torch.split(kl,",
        "policy_update",
    ),
    _mutant(
        "sampling temperature forgotten",
        "policy",
        "self.network.logprobs(packed, self.settings.rollout.temperature, entropy=wants_entropy)",
        "self.network.logprobs(packed, 1.0, entropy=wants_entropy)",
        "policy_update",
    ),
    _mutant(
        "costs without temperature",
        "policy",
        "logps, _ = self.network.logprobs(packed, self.settings.rollout.temperature)",
        "logps, _ = self.network.logprobs(packed, 1.0)",
        "policy_update",
    ),
    _mutant(
        "reference without temperature",
        "policy",
        "reference.logprobs(packed, self.settings.rollout.temperature)",
        "reference.logprobs(packed, 1.0)",
        "policy_update",
    ),
    _mutant(
        "the reference stays",
        "policy",
        "if self.reference is not None and is_due(",
        "if self.reference is None and is_due(",
        "policy_update",
    ),
    _mutant("a moved reference is not saved", "policy", " | self._moved_reference()", "", "policy_update"),
    _mutant("bad gradients pass", "policy", "if not skipped:", "if True:", "policy_update"),
    _mutant("bad gradients stay", "policy", "self.optimiser.zero_grad(set_to_none=True)", "pass", "policy_update"),
    _mutant("warm-up from nothing", "policy", "settings.lr * (step + 1)", "settings.lr * step", "policy_update"),
    _mutant("gains decay", "policy", '"weight_decay": 0.0}', '"weight_decay": settings.weight_decay}', "policy_update"),
    _mutant("loss summed over passes", "policy", '["loss"] / self._num_passes', '["loss"]', "metrics"),
    _mutant(
        "gap of the other direction", "policy", "(torch.exp(gap) - gap - 1)", "(torch.exp(-gap) + gap - 1)", "metrics"
    ),
    _mutant("ties go to the right answer", "evaluation", "/ len(leaders)", "/ 1", "statistics"),
    _mutant("McNemar on one side", "evaluation", "2 * tail / (1 << num)", "tail / (1 << num)", "statistics"),
    _mutant("McNemar beyond the tail", "evaluation", "min(gained, lost) + 1)", "min(gained, lost))", "statistics"),
    _mutant("McNemar of completions", "evaluation", "if is_single else None", "if ids else None", "statistics"),
    _mutant("problems by any", "evaluation", "sum(after[name]) / len(", "any(after[name]) or len(", "statistics"),
    _mutant("an interval of 90 %", "evaluation", "[0.025, 0.975]", "[0.05, 0.95]", "statistics"),
    _mutant("interval decides", "evaluation", "self.p_value < _SIGNIFICANT", "self.difference.low > 0", "statistics"),
    _mutant("problems of one side count", "evaluation", "if name in after]", "]", "statistics"),
    _reward_mutant("short wrong answers are paid", "parts", "else min(0.0, value)", "else value", "reward_length"),
    _reward_mutant(
        "cosine not clamped",
        "parts",
        "min(1.0, one.num_tokens / options.max_tokens)",
        "one.num_tokens / options.max_tokens",
        "reward_length",
    ),
    _reward_mutant("no floor for overlong", "parts", "-min(1.0, max(0.0, ramp))", "-max(0.0, ramp)", "reward_length"),
    _reward_mutant(
        "only too long is off target", "parts", "abs(target - one.num_tokens)", "(target - one.num_tokens)", "reward_l1"
    ),
    _reward_mutant("no clip of the budget", "parts", "min(1.0, max(0.0, budget))", "min(1.0, budget)", "reward_l1"),
    _reward_mutant(
        "repetition praised",
        "parts",
        "return (1 - unique / total)",
        "return (unique / total)",
        "reward_repetition",
    ),
    _reward_mutant(
        "a number may be used again",
        "checkers",
        "tuple(sorted(parser.used))",
        "tuple(sorted({*parser.used}))",
        "checkers",
    ),
    _reward_mutant(
        "any decimal will do",
        "checkers",
        "self.num_digits >= min_digits",
        "self.num_digits > 0",
        "answer_policy",
    ),
    _reward_mutant(
        "order of lists the wrong way round",
        "checkers",
        'list_order == "same" and not num_sets',
        'list_order == "any" and not num_sets',
        "answer_policy",
    ),
    _reward_mutant(
        "a dropped unit is wrong",
        "checkers",
        "if is_needed or (unit and other):",
        "if is_needed or unit or other:",
        "answer_policy",
    ),
    _mutant(
        "signal by the mean",
        "rollout",
        "not is_dead(group.rewards)",
        "any(one != sum(group.rewards) / len(group.rewards) for one in group.rewards)",
        "selection",
    ),
    _mutant("surplus kept", "rollout", "tuple(living[:num_groups])", "tuple(living)", "selection"),
    _mutant(
        "groups drawn in vain divide the loss",
        "rollout",
        "tuple(living[:num_groups])",
        "tuple([*living[:num_groups], *dead])",
        "selection",
    ),
    _mutant("GDPO's signal is the sum's", "rollout", 'advantage == "gdpo"', 'advantage == "none"', "selection"),
    _mutant("what was left out flatters", "run", "*surplus, *dead]", "*surplus]", "selection"),
    _mutant(
        "scaling forgotten in the merge",
        "model",
        "self._layers[layer].get_delta_weight(POLICY)",
        "self._layers[layer].get_delta_weight(POLICY) / self._layers[layer].scaling[POLICY]",
        "lora",
    ),
    _mutant(
        "B and A merged the wrong way round",
        "model",
        "self._layers[layer].get_delta_weight(POLICY)",
        "self._layers[layer].get_delta_weight(POLICY).T.reshape(tensor.shape)",
        "lora",
    ),
    _mutant(
        "adapters left on in the reference", "model", "with self._peft.disable_adapter():", "if self._peft:", "lora"
    ),
    _mutant(
        "adapters of the policy for those of the reference",
        "model",
        "self._peft.set_adapter(REFERENCE, inference_mode=True)",
        "self._peft.set_adapter(POLICY, inference_mode=True)",
        "lora",
    ),
    _mutant("what flows between layers in bf16", "model", "output: output.float()", "output: output", "lora"),
    _mutant(
        "a decay that ends after the last update",
        "policy",
        "max(1, num_steps - 1 - settings.warmup_steps)",
        "max(1, num_steps - settings.warmup_steps)",
        "learning_rate",
    ),
    _mutant(
        "a decay that starts before the warm-up is over",
        "policy",
        "(step - settings.warmup_steps) /",
        "step /",
        "learning_rate",
    ),
    _mutant(
        "a warm-up that starts at nothing", "policy", "settings.lr * (step + 1)", "settings.lr * step", "learning_rate"
    ),
    _mutant(
        "half a cosine's way",
        "policy",
        "math.cos(math.pi * progress)",
        "math.cos(math.pi * progress / 2)",
        "learning_rate",
    ),
    _mutant(
        "the KL is charged before",
        "advantages",
        "worth = _OF_GROUPS[advantage](group.rewards)",
        "worth = _OF_GROUPS[advantage]([r - c.total for r, c in zip(group.rewards, _charged(group, charges))])",
        "compute_advantages",
    ),
    _mutant(
        "a group without a signal is charged",
        "advantages",
        'return advantage == "batch" or not is_dead(group.rewards)',
        "return True",
        "compute_advantages",
    ),
    _mutant(
        "all costs for all tokens",
        "advantages",
        "credited.charge_scale * (one[0] - one)",
        "credited.charge_scale * 0 * one",
        "compute_advantages",
    ),
    _mutant(
        "the spread inside completions forgotten", "advantages", "part.squares + part.count", "part.count", "advantages"
    ),
    _mutant("truncated completions count", "advantages", 'if finish == "length")', "if False)", "batch"),
    _mutant("the ranks keep their turns", "batching", "(each if number % 2 == 0 else each[::-1])", "each", "balance"),
    _mutant(
        "a reference asked in each pass",
        "policy",
        "frozen = frozen or self._freeze(packed, logps, entropies, sums)",
        "frozen = self._freeze(packed, logps, entropies, sums)",
        "policy_update",
    ),
    _mutant("the gap of all tokens", "policy", "gap = torch.where(taught, gap, 0.0)", "pass", "metrics"),
    _mutant("weights leave in the trainer's type", "policy", "tensor.detach().to(dtype)", "tensor.detach()", "export"),
    _mutant(
        "a shard is written before its last tensor",
        "policy",
        "if len(waiting[file]) == len(shards.filename_to_tensors[file]):",
        "if len(waiting[file]) == max(1, len(shards.filename_to_tensors[file]) - 1):",
        "export",
    ),
    _mutant(
        "tied tensors written twice",
        "policy",
        "if name not in network.model.all_tied_weights_keys\n    }",
        "}",
        "export",
    ),
    _loop_mutant("promised room is forgotten", ".free - _num_promised(place) >", ".free >", "transfer_room"),
    _loop_mutant("what is written counts twice", "promised - _num_written(folder)", "promised", "transfer_room"),
    _loop_mutant(
        "a stop string's last token is cut off", "ended, new.shape[1], self", "ended, new.shape[1] - 1, self", "engines"
    ),
    _loop_mutant(
        "stop strings looked for in the prompt", "self._stops(new, scores)", "self._stops(input_ids, scores)", "engines"
    ),
    _loop_mutant("an aborted completion is whole", 'one.finish == "abort"', "one.finish is None", "engines"),
)
