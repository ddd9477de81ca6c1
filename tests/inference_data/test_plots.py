"""ArviZ's own plots take the objects this layer makes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from pyro_klmodes.inference_data import Variable, build
from pyro_klmodes.inference_data.versions import az


@pytest.fixture
def data():
    draws = np.random.default_rng(0)
    return build(
        {
            "posterior": {
                "mu": Variable(draws.normal(size=(1, 200))),
                "theta": Variable(draws.normal(size=(1, 200, 3)), ("school",)),
            }
        },
        coords={"school": ["a", "b", "c"]},
    )


@pytest.mark.parametrize("plot", ["plot_forest", "plot_pair"])
def test_arviz_draws_it(data, plot):
    plt.switch_backend("Agg")

    getattr(az, plot)(data)

    drawn = plt.figure(plt.get_fignums()[-1]).axes
    assert any(axes.collections or axes.lines for axes in drawn)
    plt.close("all")
