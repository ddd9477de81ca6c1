"""The network that sees the data: sizes, standardisation, what it refuses."""

import pytest
import torch
from torch import nn

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.amortized.encoder import MLP, encode


def test_standardised_inputs_have_mean_zero_and_variance_one():
    rows = 5.0 + 3.0 * torch.randn(100, 2, 3)
    found = MLP(hidden=()).build(rows, like=torch.zeros(()))(rows)
    assert found.shape == (100, 6)
    torch.testing.assert_close(found.mean(0), torch.zeros(6), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(6))


def test_a_coordinate_that_never_changes_is_only_shifted():
    rows = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    found = MLP(hidden=()).build(rows, like=torch.zeros(()))(torch.tensor([[2.0, 8.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0]]))


def test_standardisation_is_of_the_first_data_and_in_the_state_dict():
    network = MLP(hidden=(4,)).build(torch.randn(50, 2) + 9.0, like=torch.zeros(()))
    other = MLP(hidden=(4,)).build(torch.randn(50, 2), like=torch.zeros(()))
    rows = torch.randn(5, 2)
    assert not torch.allclose(network(rows), other(rows))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(rows), other(rows))


def test_without_standardisation_inputs_are_taken_as_they_are():
    rows = torch.randn(10, 3)
    assert torch.equal(
        MLP(hidden=(), standardise=False).build(rows, like=torch.zeros(()))(rows), rows
    )


def test_layers_have_the_widths_and_the_activation_asked_for():
    network = MLP(hidden=(5, 7), activation=nn.Tanh).build(torch.randn(10, 3), like=torch.zeros(()))
    widths = [m.out_features for m in network if isinstance(m, nn.Linear)]
    assert widths == [5, 7]
    assert sum(isinstance(m, nn.Tanh) for m in network) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_is_that_of_the_latents_whatever_the_data(dtype):
    network = MLP(hidden=(4,)).build(
        torch.arange(6).reshape(3, 2), like=torch.zeros((), dtype=dtype)
    )
    assert network(torch.tensor([[1, 2]])).dtype == dtype


@pytest.mark.parametrize("hidden", [(0,), (-1, 4), (2.5,), (True,)])
def test_bad_widths_are_refused(hidden):
    with pytest.raises(InvalidArgument, match="hidden"):
        MLP(hidden=hidden)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: nn.Flatten(0), r"made \(6,\) of data of shape \(3, 2\)"),
        (lambda: nn.Unflatten(1, (1, 2)), r"made \(3, 1, 2\)"),
        (lambda: nn.LSTM(2, 2), "made tuple"),
    ],
)
def test_an_encoder_must_return_a_vector_for_each_row(network, message):
    with pytest.raises(InvalidArgument, match=message):
        encode(network(), torch.randn(3, 2))
