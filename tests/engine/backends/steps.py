"""A step of a small regression, traced from plain torch: loss, gradient and Adam."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import softplus

#: outputs that replace inputs: the parameters, both moments and the number of the step
STATE = {0: 0, 1: 1, 2: 2, 3: 3}


def step(p, m, v, count, noise, x, y):
    """One draw of the coefficients from their normal guide, and a step of Adam on the ELBO."""
    leaf = p.detach().requires_grad_()
    loc, scale = leaf[:3], softplus(leaf[3:])
    w = loc + scale * noise
    loss = 0.5 * ((y - x @ w) ** 2).sum() + 0.5 * (w**2).sum() - scale.log().sum()
    (g,) = torch.autograd.grad(loss, leaf)
    count = count + 1
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    unbiased = (v / (1 - 0.999**count)).sqrt()
    p = p - 0.01 * (m / (1 - 0.9**count)) / (unbiased + 1e-8)
    return p, m, v, count, loss.detach()


def inputs_of_step():
    def zeros(*shape):
        return torch.zeros(*shape, dtype=torch.float64)

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    return [zeros(6), zeros(6), zeros(6), zeros(()), randn(3), randn(12, 3), randn(12)]


def traced(function, inputs):
    return make_fx(function)(*copies(inputs))


def copies(inputs):
    return [x.clone() for x in inputs]
