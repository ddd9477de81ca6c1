"""What a comparison comes to, in words."""

import math

import pytest

from pyro_klmodes.comparison import Comparison
from pyro_klmodes.entries import Moments, Reference
from tests.comparison.made_up import FAILURE, chains, diagnosis, fitted, weights


def conclusion(*outcomes, reference=None):
    return Comparison(tuple(outcomes), reference or Reference()).conclusion


@pytest.mark.parametrize(
    ("words", "headline"),
    [
        (["reliable"], "The fit can be believed."),
        (["doubtful"], "The fit cannot be believed."),
        (["reliable", "reliable"], "All fits can be believed."),
        (["reliable", "far off"], "a can be believed; the other cannot."),
        (["reliable", "far off", "doubtful"], "a can be believed; the others cannot."),
        (["reliable", "reweight"], "a can be believed; b can be used with weighted draws."),
        (
            ["reliable", "reweight", "doubtful"],
            "a can be believed; b can be used with weighted draws; the other cannot.",
        ),
        (
            ["misses mass", "reweight"],
            "No fit can be believed as it is, but b can be used with weighted draws.",
        ),
        (["far off", "unknown"], "No fit can be believed as it is."),
    ],
)
def test_the_headline_says_which_fits_can_be_believed(words, headline):
    fits = [fitted(label, word=word) for label, word in zip("abc", words, strict=False)]

    assert conclusion(*fits).headline == headline


def test_failures_only():
    found = conclusion(FAILURE, FAILURE)

    assert found.headline == "Every fit failed."
    assert found.points[0] == "point failed: NoDensity: <a point> has no density"
    assert found.next_steps == ()


def test_the_quickest_of_the_reliable_fits_is_the_one_to_take():
    slow, quick = fitted("slow", seconds=9.0), fitted("quick", seconds=2.0)

    assert conclusion(slow, quick).next_steps == (
        "Take quick, the quickest of the fits that can be believed.",
    )


def test_without_a_reliable_fit_the_advice_is_that_of_the_most_promising_one():
    far = fitted("far", diagnosis=diagnosis("far off", ["give up"]))
    near = fitted("near", diagnosis=diagnosis("misses mass", ["add a component", "widen"]))

    steps = conclusion(far, near).next_steps

    assert steps == ("near: add a component", "near: widen")


def test_of_fits_alike_the_one_with_the_largest_evidence_is_the_most_promising():
    fits = [
        fitted(
            x, diagnosis=diagnosis("doubtful", [f"step {x}"], weights=weights(log_evidence=value))
        )
        for x, value in (("a", -9.0), ("b", -3.0), ("c", None))
    ]

    assert conclusion(*fits).next_steps == ("b: step b",)


def test_fits_with_the_same_verdict_share_a_point():
    reference = Reference({"mu": Moments.of(12.0, 1.0)})
    fits = [fitted(x, diagnosis=diagnosis("doubtful")) for x in "ab"]

    assert conclusion(*fits).points == ("a and b: doubtful. A sentence.",)
    assert conclusion(*fits, reference=reference).points == (
        "a and b: doubtful. A sentence. Against the reference, a: the mean of mu is off by 10.00 "
        "reference standard deviations; b: the mean of mu is off by 10.00 reference standard "
        "deviations.",
    )


def test_a_reliable_fit_that_the_reference_contradicts_is_not_believed():
    reference = Reference({"mu": Moments.of(5.0, 2.0)}, origin="quadrature")
    found = conclusion(fitted("a"), reference=reference)  # mean 2, sd 1

    assert found.headline == "The fit cannot be believed."
    assert found.points == (
        "a is called reliable by its own draws, but the reference contradicts it: the mean of mu "
        "is off by 1.50 reference standard deviations and the standard deviation of mu is 0.50 "
        "times that of the reference.",
    )


def test_agreement_with_the_reference_is_told_with_its_size():
    reference = Reference({"mu": Moments.of(2.1, 1.0)}, origin="quadrature")

    assert conclusion(fitted("a"), reference=reference).points == (
        "The means of a are within 0.10 reference standard deviations of the reference, and the "
        "standard deviations within 0%.",
    )


def test_chains_that_have_not_converged_are_no_reference():
    nuts = chains(word="not converged")
    reference = Reference(nuts.moments, label="nuts", origin="the fit nuts")
    points = conclusion(fitted("a"), nuts, reference=reference).points

    assert points[0] == "The reference, nuts, is itself not converged: judge nothing by it."


def with_evidence(label, value, error=0.01, word="reliable", model=fitted):
    found = diagnosis(word, weights=weights(log_evidence=value, error=error))
    return fitted(label, diagnosis=found, model=model)


def test_a_fit_with_less_evidence_than_another_one_misses_mass():
    found = conclusion(with_evidence("one mode", -3.0 + math.log(0.5)), with_evidence("both", -3.0))

    assert found.headline == "both can be believed; the other cannot."
    assert found.points[0] == (
        "one mode is called reliable by its own draws, but its evidence is 0.69 less than that of "
        "both: it misses about 50% of the posterior's mass."
    )
    assert found.next_steps == ("Take both.",)


@pytest.mark.parametrize(
    "better",
    [
        with_evidence("b", -3.0, error=0.2),  # 0.69 is less than four standard errors
        with_evidence("b", -3.0, word="doubtful"),
        with_evidence("b", -3.0, model=diagnosis),  # the evidence of another model
        with_evidence("b", -3.69 + 0.035, error=0.0),  # the error of the first is enough
    ],
)
def test_evidence_contradicts_only_beyond_chance_and_between_fits_of_one_model(better):
    found = conclusion(with_evidence("a", -3.69), better)

    assert not any("evidence is" in point for point in found.points)
