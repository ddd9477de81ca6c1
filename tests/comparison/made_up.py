"""Fits whose numbers are known, as entries of a comparison."""

import numpy as np
import torch

from pyro_klmodes import inference_data
from pyro_klmodes.diagnosis import Diagnosis, SecondOpinion, Verdict
from pyro_klmodes.diagnosis.result import ChainSummary
from pyro_klmodes.diagnosis.weight_summary import WeightSummary
from pyro_klmodes.diagnostics import Evidence, KHat, MarginalKHat, ModeCoverage
from pyro_klmodes.entries import Failed, Fitted, Moments, Reference
from pyro_klmodes.inference_data import Elpd

MU, THETA = Moments.of(2.0, 1.0), Moments.of([0.25, -0.5], [3.0, 3.5])
REFERENCE = Reference({"theta": Moments.of([1.0, -0.5], [3.0, 7.0])}, -3.01, "closed form")
FAILURE = Failed("point", "NoDensity: <a point> has no density", "AutoDelta", "forward_kl")
S = 200


def weights(k_hat=0.5, log_evidence=-3.0, error=0.02, cells=1):
    return WeightSummary(k_hat, 0.7, 150.0, S, cells, 0, log_evidence, error)


def khats(*values):
    value = torch.tensor(values)
    return KHat(value, 0.1 * torch.ones_like(value), S, 0.7, 100.0 * torch.ones_like(value))


def opinion(*masses):
    modes = torch.arange(float(len(masses)))[:, None]
    return SecondOpinion(modes, torch.tensor(masses), -3.0, 0.01, 900.0, 1000, 16)


def coverage(*masses):
    shares = torch.tensor(masses)
    return ModeCoverage((S * shares).long(), shares, 0.5, 1.0, 0.1, 1.0, ())


def diagnosis(word="reliable", advice=(), sentence="A sentence.", **more):
    elbo = Evidence("ELBO", -3.25, 0.03, "lower bound")
    tighter = Evidence("IWAE_16", -3.05, 0.03, "lower bound")
    around = Evidence("CUBO_2", -2.9, 0.1, "estimate")
    known = {
        "weights": weights(),
        "k_hat": khats(0.5),
        "marginal_k_hat": {
            "mu": MarginalKHat(torch.tensor(0.1), 0.1, ()),
            "theta": MarginalKHat(torch.tensor([0.9, -0.2]), 0.9, (0,)),
        },
        "evidence": {found.name: found for found in (elbo, tighter, around)},
    }
    return Diagnosis(Verdict(word, sentence, tuple(advice)), S, **(known | more))


def inference_data_of(values):
    return inference_data.from_draws(values, torch.zeros(S), torch.zeros(S))


def fitted(label="a", guide="AutoNormal", loss="ReverseKL", word="reliable", **more):
    found = more.pop("diagnosis", None) or diagnosis(word)
    draws = {"mu": 2.0 + torch.randn(S), "theta": 3.0 * torch.randn(S, 2)}
    known = {
        "moments": {"mu": MU, "theta": THETA},
        "data": inference_data_of(draws),
        "seconds": 1.25,
        "gradient_evaluations": 64000,
        "training": np.linspace(9.0, 3.0, 50),
    }
    return Fitted(label, guide, loss, found, **(known | more))


def chains(label="nuts", word="reliable"):
    summary = ChainSummary({"mu": torch.tensor(1.004)}, {"mu": torch.tensor(512.0)}, 0)
    found = Diagnosis(Verdict(word, "A sentence."), S, chains=summary)
    return fitted(
        label,
        "NUTS",
        None,
        diagnosis=found,
        seconds=None,
        gradient_evaluations=None,
        training=np.empty(0),
    )


def elpd(*pareto_k):
    k = np.array(pareto_k)
    return Elpd(-31.5, 1.5, 2.0, S, len(k), bool((k > 0.7).any()), 0.7, np.zeros(len(k)), k)
