"""What is maximised: a function from a micro-batch's tokens to one loss a token, for each published objective.

In the unified view of DeepSeekMath (arXiv 2402.03300, section 5.2) every method moves each token's log-prob with a
gradient coefficient of its own, and differs in where its completions come from, what rewards them, and what it makes
of that coefficient. So it is here: the update differentiates an objective by the tokens' log-probs alone, and these
coefficients are all that the model's backward pass is told. The other two are recipe settings: `data` and `rollout`,
`rewards` and `update.advantage`.
"""
