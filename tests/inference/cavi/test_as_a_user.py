"""What somebody does to CAVI who has a model and has not read its source."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss
from pyro_klmodes.inference.cavi import CAVI

Y = torch.tensor([0.5, 1.5, 1.0, -0.3, 2.0])


def normal(y):
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)


def interrupt(info):
    if info.step == 1:
        raise KeyboardInterrupt


def test_ctrl_c_returns_what_was_fitted_so_far():
    result = CAVI(normal).fit(Y, callbacks=[interrupt])
    assert result.interrupted
    assert result.steps == 2
    assert "interrupted" in repr(result)
    assert len(pyro.get_param_store()) == 0
    whole = CAVI(normal).fit(Y, steps=2)
    torch.testing.assert_close(result.params, whole.params)


def test_what_a_callback_is_told_can_be_printed():
    words = []
    CAVI(normal).fit(Y, steps=2, callbacks=[lambda info: words.append(repr(info))])
    assert max(map(len, words)) < 300


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: CAVI(normal).fit(), InvalidArgument, "missing a required argument"),
        (lambda: CAVI(normal).check(), InvalidArgument, "missing a required argument"),
        (lambda: CAVI(normal).fit(Y, num_steps=3), InvalidArgument, "pass steps= instead"),
        (lambda: CAVI(normal).fit(Y, callback=print), InvalidArgument, "callbacks="),
        (lambda: CAVI(normal).fit(Y, progress="no"), InvalidArgument, "progress='no'"),
        (lambda: CAVI(normal).fit(Y[:0]), InvalidArgument, "argument 0 is empty"),
        (lambda: CAVI(normal).fit(Y[:, None]), InvalidArgument, r"shape \(5, 1\)"),
        (lambda: CAVI(normal).fit(Y / 0), NonFiniteLoss, "observed site 'y' are infinite"),
    ],
)
def test_messages_name_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_double_data_in_single_precision():
    y = Y.double()
    torch.set_default_dtype(torch.float32)
    try:
        with pytest.raises(InvalidArgument, match="observed site 'y' are torch.float64"):
            CAVI(normal).fit(y)
    finally:
        torch.set_default_dtype(torch.float64)
