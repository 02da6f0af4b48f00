"""The language model's head, on the positions that predict a response token and on no other.

TRL's fused head computes log-probabilities tile by tile, so that logits of a whole batch never exist; here it is given
the hidden states that matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from .attention import causal_lm


class TokenScores(NamedTuple):
    """What a forward says of U tokens; all of shape (U,), but for `aux_loss`.

    Attributes:
        logps: log π of each token, floating dtype.
        entropy: Of the distribution that each was drawn from; None where it isn't computed.
        is_top1: Whether each was the likeliest, bool; None where it isn't computed.
        aux_loss: The router's of a mixture of experts, a scalar; None for others.
    """

    logps: Tensor
    entropy: Any
    is_top1: Any
    aux_loss: Any


def keep_predictors(model: Any) -> None:
    """Has the backbone of a causal LM take `predictors`, and then hand on the hidden states of these positions alone.

    Args:
        model: A causal language model with TRL's fused head, perhaps under an adapter.
    """
    backbone = causal_lm(model).base_model
    wanted: list[Tensor | None] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        wanted[:] = [kwargs.pop("predictors", None)]
        return args, kwargs

    def after(module: Any, args: Any, output: Any) -> Any:
        if wanted[0] is not None:
            rows, columns = wanted[0]
            states = output.last_hidden_state
            places = rows * states.size(1) + columns % states.size(1)
            output.last_hidden_state = states.flatten(0, 1).index_select(0, places)[None]
        return output

    backbone.register_forward_pre_hook(before, with_kwargs=True)
    backbone.register_forward_hook(after)


def score(model: Any, predictors: Tensor, labels: Tensor, **arguments: Any) -> TokenScores:
    """Runs a model and scores the tokens that are wanted.

    Args:
        model: One that `keep_predictors` was told of, however wrapped.
        predictors: Row and column, from the row's end (−1 is its last), of each position whose next token is scored;
            int64 (2, U).
        labels: The tokens; int64 (U,).
        arguments: Of the model's forward.
    """
    outputs = model(**arguments, predictors=predictors, shift_labels=labels[None], use_cache=False, fused_lm_head=True)

    def flat(values: Any) -> Any:
        return None if values is None else values[0]

    return TokenScores(flat(outputs.log_probs), flat(outputs.entropy), flat(outputs.is_top1), outputs.aux_loss)
