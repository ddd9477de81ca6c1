"""Binary images: what is drawn, and that it is the same every time."""

import pytest
import torch
from sklearn.datasets import load_digits

from models import images


def test_digits_are_all_there_once_and_pixels_follow_their_greys():
    (x, label), (x_test, label_test) = images.digits()
    grey, _ = images.digits(binary=False)[0]
    labels = torch.cat([label, label_test])
    assert torch.equal(labels.bincount(), torch.as_tensor(load_digits().target).bincount())
    assert x.unique().tolist() == x_test.unique().tolist() == [0, 1]
    assert torch.equal(images.digits()[0][0], x)
    # 5 standard errors of 1400 independent pixels with these chances, for each of 64 places
    error = (grey * (1 - grey)).sum(0).sqrt() / len(x)
    assert ((x.mean(0) - grey.mean(0)).abs() <= 5 * error).all()
    assert torch.equal(x[grey == 1], torch.ones(int((grey == 1).sum())))


def test_a_binary_digit_is_an_image_of_its_own_label():
    (x, label), (x_test, label_test) = images.digits()
    means = torch.stack([x[label == c].mean(0) for c in range(10)]).clamp(0.01, 0.99)
    log_p = x_test @ means.log().T + (1 - x_test) @ (1 - means).log().T
    # pixels independent given the label: far better than the tenth of a guess
    assert float((log_p.argmax(1) == label_test).double().mean()) > 0.8


def test_shapes_are_drawn_in_chunks_as_if_all_at_once():
    x = images.shapes(images.CHUNK + 5)
    assert torch.equal(x[:7], images.shapes(7))
    assert x.unique().tolist() == [0, 1]
    assert not torch.equal(images.shapes(7, seed=1), x[:7])


def test_every_shape_has_something_on_it_and_no_two_are_the_same():
    x = images.shapes(2000)
    black = x.sum(1)
    assert black.min() > 10
    assert black.max() < 784 / 2
    assert len(x.unique(dim=0)) == len(x)


def test_neighbouring_pixels_go_together():
    x = images.shapes(500).reshape(-1, 28, 28)
    same = (x[:, 1:] == x[:, :-1]).double().mean()
    share = x.mean()
    assert same > 0.9 > share**2 + (1 - share) ** 2


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="num_data must be at least 1, got 0"):
        images.shapes(0)
