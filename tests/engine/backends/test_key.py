import pytest
import torch

from pyro_klmodes.engine.backends.arrange import arrange
from pyro_klmodes.engine.backends.key import key_of
from tests.engine.backends.steps import traced


def key(function, inputs, in_place=(), settings=()):
    arranged = arrange(traced(function, inputs), inputs, dict(in_place))
    return key_of(arranged, inputs, settings)


def usual(x, y):
    return (x * 2 + y.sum(), y + torch.tensor([1.0, 2.0], dtype=torch.float64))


INPUTS = [torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)]


def test_a_graph_traced_again_has_the_same_key():
    assert key(usual, INPUTS) == key(lambda a, b: usual(a, b), [x + 1 for x in INPUTS])


OTHERS = {
    "operation": lambda x, y: (x * 2 - y.sum(), y + torch.tensor([1.0, 2.0])),
    "argument": lambda x, y: (x * 2.5 + y.sum(), y + torch.tensor([1.0, 2.0])),
    "constant": lambda x, y: (x * 2 + y.sum(), y + torch.tensor([1.0, 2.1])),
    "wiring": lambda x, y: (x * 2 + x.sum(), y + torch.tensor([1.0, 2.0])),
    "order": lambda x, y: (y + torch.tensor([1.0, 2.0]), x * 2 + y.sum()),
    "outputs": lambda x, y: (x * 2 + y.sum(), y + torch.tensor([1.0, 2.0]), y.sum()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_graph_has_another_key(name):
    assert key(OTHERS[name], INPUTS) != key(usual, INPUTS)


@pytest.mark.parametrize(
    "inputs",
    [
        [torch.zeros(4, 2, dtype=torch.float64), INPUTS[1]],
        [torch.zeros(2, 3, dtype=torch.float64).T, INPUTS[1]],
        [INPUTS[0], INPUTS[1].float()],
    ],
    ids=["shape", "strides", "dtype"],
)
def test_inputs_of_another_layout_have_another_key(inputs):
    assert key(usual, inputs) != key(usual, INPUTS)


def test_what_goes_in_place_and_how_it_is_compiled_count():
    keys = {key(usual, INPUTS), key(usual, INPUTS, {1: 1}), key(usual, INPUTS, settings="other")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    "change",
    [
        ("torch.__version__", "0.0"),
        ("torch.get_num_threads", lambda: 64),
        ("torch.backends.cpu.get_cpu_capability", lambda: "other"),
        ("platform.machine", lambda: "other"),
        ("pyro_klmodes.engine.backends.key._flags", lambda: "sse"),
    ],
    ids=lambda change: change[0],
)
def test_another_machine_has_another_key(monkeypatch, change):
    here = key(usual, INPUTS)
    monkeypatch.setattr(*change)
    assert key(usual, INPUTS) != here
