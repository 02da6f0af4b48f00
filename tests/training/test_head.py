"""The head off a GPU against torch's own log_softmax, and against TRL's kernel."""

from typing import Any

import pytest
import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from bmc.training.lm_head import TiledLogProbs

OUTPUTS = ("log_probs", "entropy", "is_top1")


def inputs(dtype: torch.dtype, bias: bool, tokens: int = 300) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(tokens, 8, generator=generator), torch.randn(50, 8, generator=generator)
    offset = torch.randn(50, generator=generator) if bias else None
    targets = torch.randint(0, 50, (tokens,), generator=generator)
    return *(None if x is None else x.to(dtype).requires_grad_() for x in (hidden, weight, offset)), targets


def gradients(logps: Any, leaves: Any) -> list[Any]:
    (logps.double() * torch.linspace(-1, 2, len(logps), dtype=torch.float64)).sum().backward()
    found = [leaf.grad for leaf in leaves if leaf is not None]
    for leaf in leaves:
        if leaf is not None:
            leaf.grad = None
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (None, 0.5), (5.0, 1.0), (5.0, 2.0)])
def test_values_and_gradients_are_torchs(bias, softcap, scale):
    hidden, weight, offset, targets = inputs(torch.float64, bias)
    logps, entropy, _, _, is_top1 = TiledLogProbs.apply(
        hidden, weight, offset, targets, 1.0, 32768, softcap, scale, OUTPUTS
    )
    found = gradients(logps, (hidden, weight, offset))
    logits = torch.nn.functional.linear(hidden, weight, offset) * scale
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = logits.log_softmax(-1)
    torch.testing.assert_close(logps, expected.gather(1, targets[:, None])[:, 0])
    torch.testing.assert_close(entropy, -(expected.exp() * expected).sum(-1))
    assert is_top1.tolist() == (logits.argmax(-1) == targets).tolist()
    for mine, theirs in zip(
        found, gradients(expected.gather(1, targets[:, None])[:, 0], (hidden, weight, offset)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_values_and_gradients_are_trls(subtests: pytest.Subtests) -> None:
    for dtype in [torch.float32, torch.bfloat16]:
        with subtests.test(dtype=dtype):
            hidden, weight, offset, targets = inputs(dtype, bias=False)
            arguments = (offset, targets, 1.0, 32768, None, 1.0, OUTPUTS)
            ours = TiledLogProbs.apply(hidden, weight, *arguments)
            found = gradients(ours[0], (hidden, weight))
            theirs = ChunkedLogProbFunction.apply(hidden, weight, *arguments)
            tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
            torch.testing.assert_close(ours[0], theirs[0], **tolerance)
            torch.testing.assert_close(ours[1], theirs[1], **tolerance)
            assert ours[0].dtype == torch.float32
            for mine, other in zip(found, gradients(theirs[0], (hidden, weight)), strict=True):
                torch.testing.assert_close(mine, other, **tolerance)


def test_frozen_weights_get_no_gradient():
    hidden, weight, _, targets = inputs(torch.float32, bias=False, tokens=5)
    logps = TiledLogProbs.apply(hidden, weight.detach(), None, targets, 1.0, 32768, None, 1.0, OUTPUTS)[0]
    logps.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None
