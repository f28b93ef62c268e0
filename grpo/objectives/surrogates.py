"""The objectives' functions: each returns the loss of every token, (N,), to be minimised.

The update multiplies these by the tokens' weights and divides their sum by one denominator (`update.normalise`), so a
function states one token's term. Where a paper's term belongs to a whole completion, each of its tokens carries it,
and the normalisation `sequence` (weights 1 / length) makes it count once.

In the equations rho is pi_theta / pi_old of one token, A its advantage, n the length of its completion, and sg what is
held constant in the gradient. The coefficient is the loss's derivative by the token's log-prob; with an unmoved policy
it is -A in all of them, which is REINFORCE.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from grpo.objectives.tokens import Tokens

Above0 = Annotated[float, Field(gt=0)]
Above1 = Annotated[float, Field(gt=1)]
Below1 = Annotated[float, Field(gt=0, lt=1)]
AtMost1 = Annotated[float, Field(ge=0, le=1)]
AtLeast1 = Annotated[float, Field(ge=1)]


def clipped_ratio(
    tokens: Tokens, *, clip_low: Below1 = 0.2, clip_high: Above0 = 0.2, dual_clip: Above1 | None = None
) -> Tensor:
    """-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A).

    PPO's equation 7 (arXiv 1707.06347), a token at a time as in GRPO (DeepSeekMath, arXiv 2402.03300, equation 3); the
    two bounds are apart as in DAPO (arXiv 2503.14476, equation 10). With `dual_clip` c, where A < 0 the loss is no more
    than -c A (arXiv 1912.09729, section on the dual clip, where c is 3), so that a token whose ratio exploded stops
    pulling.
    """
    objective = _lesser(tokens.ratio, tokens.advantage, clip_low, clip_high)
    if dual_clip is not None:
        objective = torch.where(tokens.advantage < 0, torch.maximum(objective, dual_clip * tokens.advantage), objective)
    return -objective


def sequence_ratio(tokens: Tokens, *, clip_low: Below1 = 3e-4, clip_high: Above0 = 4e-4) -> Tensor:
    """-min(s A, clip(s, 1 - clip_low, 1 + clip_high) A), with s = exp(sum(log rho) / n) of the whole completion.

    GSPO (arXiv 2507.18071, equations 5 and 7; the bounds are those of its section 5.1). The term is the completion's:
    with the normalisation `sequence` each of its tokens gets the coefficient -s A / n, or 0 where s is clipped.
    """
    ratio = torch.exp(tokens.means(tokens.policy_logp - tokens.proximal_logp))
    return -_lesser(ratio, tokens.advantage, clip_low, clip_high)


def sequence_token_ratio(tokens: Tokens, *, clip_low: Below1 = 3e-4, clip_high: Above0 = 4e-4) -> Tensor:
    """-min(s_t A, clip(s_t, 1 - clip_low, 1 + clip_high) A), with s_t = sg(s) pi_theta / sg(pi_theta) of the token.

    GSPO-token (arXiv 2507.18071, equations 13 and 14): in value s_t is the s of `sequence_ratio`, but it has the
    gradient of its own token alone, so that advantages may differ within a completion. Where they do not, both agree.
    """
    own = tokens.policy_logp - tokens.policy_logp.detach()
    ratio = torch.exp(tokens.means((tokens.policy_logp - tokens.proximal_logp).detach()) + own)
    return -_lesser(ratio, tokens.advantage, clip_low, clip_high)


def clipped_weight(tokens: Tokens, *, low: AtMost1 = 0.0, high: AtLeast1 = 5.0) -> Tensor:
    """-sg(clip(rho, low, high)) A log pi_theta: a clip bounds how much a token counts, but silences none.

    CISPO (MiniMax-M1, arXiv 2506.13585, equation 4), with low = 1 - eps_low and high = 1 + eps_high. As there, nothing
    is cut from below by default. The paper does not say what its upper bound was: 5 is what TRL and ms-swift recommend.
    """
    weight = tokens.ratio.detach().clamp(low, high)
    return -weight * tokens.advantage * tokens.policy_logp


def policy_gradient(tokens: Tokens) -> Tensor:
    """-rho A: nothing is clipped.

    REINFORCE, for RLOO (arXiv 2402.14740) with the advantage `leave_one_out` and the normalisation `sequence_sum`. On
    the first pass, where rho is 1, the coefficient is -A, as in the paper, which knows no other; on later ones rho
    corrects for the steps in between, a token at a time.
    """
    return -tokens.ratio * tokens.advantage


def mirror_descent(tokens: Tokens, *, tau: Above0 = 0.01) -> Tensor:
    """log(rho) (tau / 2 S - A), with S = sum(log rho) over the completion.

    Kimi k1.5 (arXiv 2501.12599, section 2.3.2): over a completion these add up to -A S + tau / 2 S^2, which is its
    squared error (A - tau S)^2 / (2 tau) less what no weight moves, with A = r - mean(r) in place of r - tau log Z.
    Each token's coefficient is -(A - tau S), as in the paper's equation 3.

    S is a sum over tokens, so the normalisation is `sequence_sum`. The paper names no tau: 0.01 is OpenKimi's (the code
    of arXiv 2602.05933, which divides the loss by the completion's length, as `sequence` does). On the first pass S is
    0, and tau has nothing to do.

    Where we differ: completions whose A is 0 are not computed at all, so that on later passes nothing holds them back.
    """
    log_ratio = tokens.policy_logp - tokens.proximal_logp
    return log_ratio * (tau / 2 * tokens.sums(log_ratio) - tokens.advantage)


def _lesser(ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """min(ratio A, clip(ratio) A): the clip takes the gradient only where the ratio has gone the way of A."""
    free = ratio * advantage
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high) * advantage
    return torch.minimum(free, bounded)
