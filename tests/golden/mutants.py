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


def _objective_mutant(name: str, file: str, old: str, new: str, killer: str = "objectives") -> Mutant:
    return _mutant(name, f"objectives/{file}", old, new, killer)


def _reward_mutant(name: str, file: str, old: str, new: str, killer: str) -> Mutant:
    return Mutant(name, f"rewards/{file}.py", old, new, f"tests/rewards/test_{killer}.py")


MUTANTS = (
    _objective_mutant("no clip", "surrogates", "return torch.minimum(free, bounded)", "return free"),
    _objective_mutant("the larger of the two", "surrogates", "return torch.minimum(", "return torch.maximum("),
    _objective_mutant("wrong sign of the objective", "surrogates", "return -objective", "return objective"),
    _objective_mutant(
        "bounds swapped",
        "surrogates",
        "ratio.clamp(1 - clip_low, 1 + clip_high)",
        "ratio.clamp(1 - clip_high, 1 + clip_low)",
    ),
    _objective_mutant("dual clip of praise", "surrogates", "tokens.advantage < 0, ", "tokens.advantage > 0, "),
    _objective_mutant(
        "product for the geometric mean",
        "surrogates",
        "torch.exp(tokens.means(tokens.policy_logp - tokens.proximal_logp))",
        "torch.exp(tokens.sums(tokens.policy_logp - tokens.proximal_logp))",
    ),
    _objective_mutant(
        "a token's ratio moves its neighbours",
        "surrogates",
        "(tokens.policy_logp - tokens.proximal_logp).detach()",
        "(tokens.policy_logp - tokens.proximal_logp)",
    ),
    _objective_mutant("weight not held constant", "surrogates", "tokens.ratio.detach()", "tokens.ratio"),
    _objective_mutant(
        "weight of the next token", "surrogates", "return -weight * tokens", "return -weight.roll(1) * tokens"
    ),
    _objective_mutant("half the weights clipped", "surrogates", ".clamp(low, high)", ".clamp(max=high)"),
    _objective_mutant(
        "no ratio on later passes", "surrogates", "return -tokens.ratio *", "return -tokens.policy_logp *"
    ),
    _objective_mutant("wrong sign of tau", "surrogates", "(tau / 2 * tokens", "(-tau / 2 * tokens"),
    _objective_mutant("tau not halved", "surrogates", "(tau / 2 * tokens", "(tau * tokens"),
    _objective_mutant("each token by itself", "surrogates", "tokens.sums(log_ratio)", "log_ratio"),
    _objective_mutant("engine for old policy", "tokens", "logp - self.proximal_logp", "logp - self.sampler_logp"),
    _objective_mutant(
        "one length for all", "tokens", "self.completion.bincount()[self.completion]", "self.completion.bincount()[:1]"
    ),
    _objective_mutant("sums of the neighbour", "tokens", "totals[self.completion]", "totals[self.completion - 1]"),
    _objective_mutant(
        "KL reversed", "kl", "torch.expm1(ref_logp - policy_logp)", "torch.expm1(policy_logp - ref_logp)", "kl"
    ),
    _objective_mutant("wrong sign in k3", "kl", "policy_logp) - (ref_logp", "policy_logp) + (ref_logp", "kl"),
    _objective_mutant("k2 not halved", "kl", ".square() / 2", ".square()", "kl"),
    _objective_mutant("wrong sign of k1", "kl", "return policy_logp - ref_logp", "return ref_logp - policy_logp", "kl"),
    _objective_mutant(
        "policy for old policy", "corrections", "(tokens.proximal_logp - ", "(tokens.policy_logp - ", "corrections"
    ),
    _objective_mutant(
        "gap reversed",
        "corrections",
        "(tokens.proximal_logp - tokens.sampler_logp)",
        "(tokens.sampler_logp - tokens.proximal_logp)",
        "corrections",
    ),
    _objective_mutant(
        "mask bounds swapped",
        "corrections",
        "(ratio >= low) & (ratio <= high)",
        "(ratio >= high) | (ratio <= low)",
        "corrections",
    ),
    _objective_mutant(
        "mask without a floor", "corrections", "(ratio >= low) & (ratio <= high)", "(ratio <= high)", "corrections"
    ),
    _objective_mutant(
        "kept tokens weigh one",
        "corrections",
        "high), ratio, torch",
        "high), torch.ones_like(ratio), torch",
        "corrections",
    ),
    _objective_mutant(
        "mean for the product",
        "corrections",
        "_masked(torch.exp(tokens.sums(",
        "_masked(torch.exp(tokens.means(",
        "corrections",
    ),
    _objective_mutant(
        "lifted to the bound",
        "corrections",
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
    _mutant("KL is a reward", "lessons", "reward - later for later", "reward + later for later", "lessons"),
    _mutant("KL raises rewards", "lessons", "[reward - math.fsum(row)", "[reward + math.fsum(row)", "lessons"),
    _mutant("no baseline", "lessons", "group_mean(group.rewards), cost)", "group.rewards, cost)", "lessons"),
    _mutant("dead groups shifted", "lessons", "rows if any(any(row) for row in left) else left", "rows", "lessons"),
    _mutant(
        "each group is its own batch",
        "lessons",
        "return _normalised([_returns(group, group.rewards, cost) for group, cost in zip(scored, costs, strict=True)])",
        "return [_normalised([_returns(group, group.rewards, cost)])[0] for group, cost in zip(scored, costs)]",
        "lessons",
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
    _mutant("parts where the sum is wanted", "lessons", 'if name == "gdpo"', 'if name != "gdpo"', "lessons"),
    _mutant("no temperature", "logprobs", ".float() / temperature", ".float()", "logprobs"),
    _mutant("no temperature on the way back", "logprobs", "by_z.div_(ctx.temperature)", "by_z", "logprobs"),
    _mutant("another norm on the way back", "logprobs", ".float().div_(ctx.temperature)", ".float()", "logprobs"),
    _mutant("normalised in half precision", "logprobs", ".float() / temperature", " / temperature", "logprobs"),
    _mutant(
        "entropy added up wrongly",
        "logprobs",
        "total.log() - torch.linalg.vecdot",
        "total.log() + torch.linalg.vecdot",
        "logprobs",
    ),
    _mutant(
        "entropy pulls the other way", "logprobs", "pull = pull - by_entropy", "pull = pull + by_entropy", "logprobs"
    ),
    _mutant(
        "the target itself left out",
        "logprobs",
        "by_z.scatter_add_(-1, targets[block, None], by_logp[block, None])",
        "pass",
        "logprobs",
    ),
    _mutant(
        "a chunk made again from other rows",
        "logprobs",
        "logits is None:\n                logits = functional.linear(hidden[rows]",
        "logits is None:\n                logits = functional.linear(hidden[rows].flip(0)",
        "logprobs",
    ),
    _mutant(
        "the head learns from the last chunk",
        "logprobs",
        "grad_weight += logits.T",
        "grad_weight = logits.T",
        "logprobs",
    ),
    _mutant("the bias learns from the last chunk", "logprobs", "grad_bias += logits", "grad_bias = logits", "logprobs"),
    _mutant("all logits wait", "logprobs", "keeps = size_bytes <= room", "keeps = True", "logprobs"),
    _mutant(
        "logits wait for nothing",
        "logprobs",
        "room = kept_bytes if torch.is_grad_enabled() else 0",
        "room = kept_bytes",
        "logprobs",
    ),
    _mutant(
        "tokens see what follows",
        "attention",
        ".triu(num_keys - length + 1)",
        ".triu(num_keys - length + 2)",
        "attention",
    ),
    _mutant(
        "tokens do not see themselves",
        "attention",
        ".triu(num_keys - length + 1)",
        ".triu(num_keys - length)",
        "attention",
    ),
    _mutant("no scale", "attention", "(queries * scale).reshape", "queries.reshape", "attention"),
    _mutant(
        "no scale in the fused kernel", "attention", "attn_mask=bias, scale=scale)", "attn_mask=bias)", "attention"
    ),
    _mutant("the model's scale forgotten", "attention", "if scaling is None else scaling", "", "attention"),
    _mutant(
        "heads paired with other keys",
        "attention",
        "states.repeat_interleave(shared, 1)",
        "states.repeat(1, shared, 1, 1)",
        "attention",
    ),
    _mutant(
        "the mask of another head's row",
        "attention",
        "bias.repeat(repeats, 1)",
        "bias.repeat_interleave(repeats, 0)",
        "attention",
    ),
    _mutant(
        "the prompt after the branch",
        "attention",
        "[prompt.expand(self._num, -1, -1, -1), own]",
        "[own, prompt.expand(self._num, -1, -1, -1)]",
        "attention",
    ),
    _mutant(
        "branches filled one row off",
        "attention",
        "min(start + index, self",
        "min(start + index + 1, self",
        "attention",
    ),
    _mutant(
        "branches emptied by their own length",
        "attention",
        "inside += range(number * longest, number * longest + length)",
        "inside += range(number * length, number * length + length)",
        "attention",
    ),
    _mutant(
        "filling learns from the first rows",
        "attention",
        "grads[0].index_select(0, ctx.saved_tensors[0]), None, None",
        "grads[0][: len(ctx.saved_tensors[0])], None, None",
        "attention",
    ),
    _mutant(
        "what was emptied goes back elsewhere",
        "attention",
        "index_copy_(0, ctx.saved_tensors[0], grads[0])",
        "index_copy_(0, ctx.saved_tensors[0].flip(0), grads[0])",
        "attention",
    ),
    _mutant("trees see each other", "attention", "(tree_of[query] == tree_of[key]) & ", "", "attention"),
    _mutant("branches see each other", "attention", " & same_path", "", "attention"),
    _mutant("branches see no prompt", "attention", "(branch_of[key] == 0) | ", "", "attention"),
    _mutant("no scale on a GPU", "attention", "scale=scale, enable_gqa", "enable_gqa", "attention"),
    _mutant("dropout forgotten", "attention", ' + ["dropout"] * bool(dropout)', "", "attention"),
    _mutant(
        "no weight for sequences",
        "batch",
        '1 / len(completion.token_ids) if normalise == "sequence" else 1.0',
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
    _mutant("dead groups have no KL", "batch", '(settings.kl_weight and settings.kl_in == "loss")', "False", "batch"),
    _mutant("dead groups have no entropy", "batch", " and not settings.entropy_weight:", ":", "batch"),
    _mutant(
        "dead groups kept for a KL in the reward",
        "batch",
        '(settings.kl_weight and settings.kl_in == "loss")',
        "settings.kl_weight",
        "batch",
    ),
    _mutant(
        "completions lost in a cut",
        "batch",
        "taken, used = [], 0\n        taken",
        "taken, used = [], 0\n            continue\n        taken",
        "batch",
    ),
    _mutant(
        "a tree lost in the balance",
        "batch",
        "sorted(trees, key=cost, reverse=True)",
        "sorted(trees, key=cost, reverse=True)[1:]",
        "batch",
    ),
    _mutant("the cheapest first", "batch", "key=cost, reverse=True", "key=cost", "batch"),
    _mutant("cost ignored", "batch", "lambda index: costs[index]", "lambda index: -room[index]", "batch"),
    _mutant("budget ignored", "batch", "if room[index] >= tree.num_tokens or not bins[index]", "", "batch"),
    _mutant("some ranks have more to do", "batch", "num += num_ranks", "num += 1", "batch"),
    _mutant(
        "predictors one late",
        "packing",
        "*range(len(ids), len(ids) + len(inputs))",
        "*range(len(ids) + 1, len(ids) + len(inputs) + 1)",
        "packing",
    ),
    _mutant(
        "predicted by the branch before",
        "packing",
        "predictors += [prompt_end,",
        "predictors += [len(ids) - 1,",
        "packing",
    ),
    _mutant(
        "positions count the whole row",
        "packing",
        "range(length, length + len(inputs))",
        "range(len(positions), len(positions) + len(inputs))",
        "packing",
    ),
    _mutant(
        "branches of whole completions",
        "packing",
        "tuple(len(branch.token_ids) - 1 for",
        "tuple(len(branch.token_ids) for",
        "packing",
    ),
    _mutant(
        "completions of another's length",
        "packing",
        "repeat_interleave(torch.tensor(lengths,",
        "repeat_interleave(torch.tensor(lengths[::-1],",
        "packing",
    ),
    _mutant(
        "predicted by the token before",
        "network",
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
        "proximal_logps = _noted(logps.detach(), packed, tally)",
        "proximal_logps = _noted(packed.sampler_logps, packed, tally)",
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
        "known.append([_noted(each, one, tally) for each, one in zip(logps, packed, strict=True)])",
        "known.append([None for _ in packed])",
        "policy_update",
    ),
    _mutant("masked counts as clipped", "policy", " & (trust != 0)", "", "policy_update"),
    _mutant("all groups in each mini-batch", "batch", "[lessons[first :: settings", "[lessons[0 :: settings", "batch"),
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
    _mutant("warm-up from nothing", "optimiser", "settings.lr * (step + 1)", "settings.lr * step", "policy_update"),
    _mutant(
        "gains decay", "optimiser", '"weight_decay": 0.0}', '"weight_decay": settings.weight_decay}', "policy_update"
    ),
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
    _mutant(
        "signal by the mean",
        "filling",
        "not is_dead(group.rewards)",
        "any(one != sum(group.rewards) / len(group.rewards) for one in group.rewards)",
        "filling",
    ),
    _mutant("surplus kept", "filling", "tuple(living[:num_groups])", "tuple(living)", "filling"),
    _mutant(
        "groups drawn in vain divide the loss",
        "filling",
        "tuple(living[:num_groups])",
        "tuple([*living[:num_groups], *dead])",
        "filling",
    ),
    _mutant("GDPO's signal is the sum's", "filling", 'advantage == "gdpo"', 'advantage == "none"', "filling"),
    _mutant("what was left out flatters", "metrics", "*surplus, *dead]", "*surplus]", "filling"),
    _mutant(
        "scaling forgotten in the merge",
        "adapters",
        "self._layers[layer].get_delta_weight(POLICY)",
        "self._layers[layer].get_delta_weight(POLICY) / self._layers[layer].scaling[POLICY]",
        "lora",
    ),
    _mutant(
        "B and A merged the wrong way round",
        "adapters",
        "self._layers[layer].get_delta_weight(POLICY)",
        "self._layers[layer].get_delta_weight(POLICY).T.reshape(tensor.shape)",
        "lora",
    ),
    _mutant(
        "adapters left on in the reference", "adapters", "with self._peft.disable_adapter():", "if self._peft:", "lora"
    ),
    _mutant(
        "adapters of the policy for those of the reference",
        "adapters",
        "self._peft.set_adapter(REFERENCE, inference_mode=True)",
        "self._peft.set_adapter(POLICY, inference_mode=True)",
        "lora",
    ),
    _mutant("what flows between layers in bf16", "network", "output: output.float()", "output: output", "lora"),
)
