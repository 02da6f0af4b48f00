"""Private names of TRL's and transformers' that training relies on: a new version that changes one fails here."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import trl.trainer.utils

from bmc.training import trl_compat
from bmc.training.lm_head import TiledLogProbs
from bmc.training.trl_compat import OVERRIDDEN, READ, fused_head_kernel, trl_kernel


def test_an_overridden_method_is_there_with_its_parameters(subtests: pytest.Subtests) -> None:
    for owner, name in OVERRIDDEN:
        with subtests.test(owner=owner, name=name):
            parameters, why = OVERRIDDEN[owner, name]
            there = list(inspect.signature(getattr(owner, name)).parameters)[1:]
            wanted = parameters.split()
            assert there[: len(wanted)] == wanted, f"{owner.__name__}.{name} takes {there}; overridden so that {why}"


@pytest.mark.slow
def test_an_attribute_is_still_used(subtests: pytest.Subtests) -> None:
    for owner, name in READ:
        with subtests.test(owner=owner, name=name):
            sources = (
                inspect.getsource(cls) for cls in owner.__mro__ if cls.__module__.startswith(("trl.", "transformers."))
            )
            assert f"self.{name}" in "".join(sources), (
                f"{owner.__name__} has no {name} now; read so that {READ[owner, name]}"
            )


def test_the_fused_heads_kernel_is_replaced_and_put_back() -> None:
    theirs = trl.trainer.utils._ChunkedLogProbFunction
    with fused_head_kernel("ours"):
        assert trl.trainer.utils._ChunkedLogProbFunction == "ours"
    assert trl.trainer.utils._ChunkedLogProbFunction is theirs
    ours, of_trl = (inspect.signature(kernel.forward).parameters for kernel in (TiledLogProbs, theirs))
    assert len(ours) == len(of_trl)
    assert trl_kernel(torch.device("cpu")) is None
    assert "_ChunkedLogProbFunction.apply(" in inspect.getsource(trl.trainer.utils.add_fused_lm_head)


def test_no_other_private_method_is_called() -> None:
    sources = "".join(file.read_text() for file in Path(trl_compat.__file__).parent.glob("*.py"))
    called = set(re.findall(r"super\(\)\.(_[a-z]\w*)\(", sources))
    assert called <= {name for _, name in OVERRIDDEN}
