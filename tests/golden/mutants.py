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
        "one length for all", "self.completion.bincount()[self.completion]", "self.completion.bincount()[:1]"
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
        "accumulate(reversed(costs)))[::-1]",
        "accumulate(costs))",
        "advantages",
    ),
    _mutant(
        "KL is a reward", "advantages", "reward - later for later", "reward + later for later", "compute_advantages"
    ),
    _mutant(
        "KL raises rewards",
        "advantages",
        "[reward - math.fsum(row)",
        "[reward + math.fsum(row)",
        "compute_advantages",
    ),
    _mutant(
        "no baseline", "advantages", "group_mean(group.rewards), cost)", "group.rewards, cost)", "compute_advantages"
    ),
    _mutant(
        "dead groups shifted",
        "advantages",
        "rows if any(any(row) for row in left) else left",
        "rows",
        "compute_advantages",
    ),
    _mutant(
        "each group is its own batch",
        "advantages",
        "return _normalised([_returns(group, group.rewards, cost) for group, cost in zip(scored, costs, strict=True)])",
        "return [_normalised([_returns(group, group.rewards, cost)])[0] for group, cost in zip(scored, costs)]",
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
        "zip(scored, sums, pulls, strict=True)",
        "zip(scored, sums, pulls, strict=True)\n        for deviation in [batch_deviation(row)]",
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
        "logits is None:\n                logits = functional.linear(hidden[rows]",
        "logits is None:\n                logits = functional.linear(hidden[rows].flip(0)",
        "logprobs",
    ),
    _mutant(
        "the head learns from the last chunk",
        "model",
        "grad_weight += logits.T",
        "grad_weight = logits.T",
        "logprobs",
    ),
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
        "min(start + index, self",
        "min(start + index + 1, self",
        "attention",
    ),
    _mutant(
        "branches emptied by their own length",
        "model",
        "inside += range(number * longest, number * longest + length)",
        "inside += range(number * length, number * length + length)",
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
    _mutant("trees see each other", "model", "(tree_of[query] == tree_of[key]) & ", "", "attention"),
    _mutant("branches see each other", "model", " & same_path", "", "attention"),
    _mutant("branches see no prompt", "model", "(branch_of[key] == 0) | ", "", "attention"),
    _mutant("no scale on a GPU", "model", "scale=scale, enable_gqa", "enable_gqa", "attention"),
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
        "lengths = [len(one.token_ids) for credited in credited_groups for one",
        "lengths = [len(one.token_ids) for credited in credited_groups if not credited.is_dead for one",
        "batch",
    ),
    _mutant(
        "dead groups have no KL", "batching", '(settings.kl_weight and settings.kl_in == "loss")', "False", "batch"
    ),
    _mutant("dead groups have no entropy", "batching", " and not settings.entropy_weight:", ":", "batch"),
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
        "taken, used = [], 0\n        taken",
        "taken, used = [], 0\n            continue\n        taken",
        "batch",
    ),
    _mutant(
        "a tree lost in the balance",
        "batching",
        "sorted(trees, key=cost, reverse=True)",
        "sorted(trees, key=cost, reverse=True)[1:]",
        "batch",
    ),
    _mutant("the cheapest first", "batching", "key=cost, reverse=True", "key=cost", "batch"),
    _mutant("cost ignored", "batching", "lambda index: costs[index]", "lambda index: -room[index]", "batch"),
    _mutant("budget ignored", "batching", "if room[index] >= tree.num_tokens or not bins[index]", "", "batch"),
    _mutant("some ranks have more to do", "batching", "num += num_ranks", "num += 1", "batch"),
    _mutant(
        "predictors one late",
        "batching",
        "*range(len(ids), len(ids) + len(inputs))",
        "*range(len(ids) + 1, len(ids) + len(inputs) + 1)",
        "packing",
    ),
    _mutant(
        "predicted by the branch before",
        "batching",
        "predictors += [prompt_end,",
        "predictors += [len(ids) - 1,",
        "packing",
    ),
    _mutant(
        "positions count the whole row",
        "batching",
        "range(length, length + len(inputs))",
        "range(len(positions), len(positions) + len(inputs))",
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
        "repeat_interleave(torch.tensor(lengths,",
        "repeat_interleave(torch.tensor(lengths[::-1],",
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
        "mean for sum", "policy", "self._objective(tokens)).sum()", "self._objective(tokens)).mean()", "policy_update"
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
        "proximal_logps = _with_gap_counted(logps.detach(), packed, tally)",
        "proximal_logps = _with_gap_counted(packed.sampler_logps, packed, tally)",
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
        "known.append([_with_gap_counted(each, one, tally) for each, one in zip(logps, packed, strict=True)])",
        "known.append([None for _ in packed])",
        "policy_update",
    ),
    _mutant("masked counts as clipped", "policy", " & (trust != 0)", "", "policy_update"),
    _mutant(
        "all groups in each mini-batch",
        "batching",
        "[credited_groups[first :: settings",
        "[credited_groups[0 :: settings",
        "batch",
    ),
    _mutant("correction dropped", "policy", "shares * trust * self", "shares * self", "policy_update"),
    _mutant("dead tokens count as clipped", "policy", " & (packed.advantages != 0)", "", "policy_update"),
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
        "torch.split(self._settings.update.kl_weight * kl,",
        "torch.split(kl,",
        "policy_update",
    ),
    _mutant(
        "sampling temperature forgotten",
        "policy",
        "logps, entropies = self._network.logprobs(packed, self._settings.rollout.temperature)",
        "logps, entropies = self._network.logprobs(packed, 1.0)",
        "policy_update",
    ),
    _mutant(
        "costs without temperature",
        "policy",
        "logps, _ = self._network.logprobs(packed, self._settings.rollout.temperature)",
        "logps, _ = self._network.logprobs(packed, 1.0)",
        "policy_update",
    ),
    _mutant(
        "reference without temperature",
        "policy",
        "reference.logprobs(packed, self._settings.rollout.temperature)",
        "reference.logprobs(packed, 1.0)",
        "policy_update",
    ),
    _mutant(
        "the reference stays",
        "policy",
        "if self._reference is not None and is_due(",
        "if self._reference is None and is_due(",
        "policy_update",
    ),
    _mutant("a moved reference is not saved", "policy", " | self._moved_reference()", "", "policy_update"),
    _mutant("bad gradients pass", "policy", "if not skipped:", "if True:", "policy_update"),
    _mutant("bad gradients stay", "policy", "self._optimiser.zero_grad(set_to_none=True)", "pass", "policy_update"),
    _mutant("warm-up from nothing", "policy", "settings.lr * (step + 1)", "settings.lr * step", "policy_update"),
    _mutant("gains decay", "policy", '"weight_decay": 0.0}', '"weight_decay": settings.weight_decay}', "policy_update"),
    _mutant("loss summed over passes", "policy", '["loss"] / self._num_passes', '["loss"]', "metrics"),
    _mutant(
        "gap of the other direction", "policy", "(torch.exp(gap) - gap - 1)", "(torch.exp(-gap) + gap - 1)", "metrics"
    ),
    _mutant("ties go to the right answer", "evaluation", "/ len(leaders)", "/ 1", "statistics"),
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
)
