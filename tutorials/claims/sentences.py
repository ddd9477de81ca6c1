"""The 32 sentences of the usual introduction, the verdicts, and where to read on.

What decides each of them is computed in the tutorial.
"""

from __future__ import annotations

from typing import NamedTuple

VERDICTS = ("true", "imprecise", "false")


class Sentence(NamedTuple):
    """One sentence, and what became of it."""

    words: str
    verdict: str  # one of VERDICTS; "imprecise" is true under a condition that is left out
    read_on: str


SENTENCES = {
    1: Sentence("KL is not symmetric", "true", "Kullback and Leibler (1951)"),
    2: Sentence(
        "KL(p‖q) is what coding draws of p with a code for q wastes",
        "true",
        "Cover and Thomas (2006)",
    ),
    3: Sentence(
        "Forward KL punishes q small where p is large, reverse KL q large where p is small",
        "true",
        "Minka (2005)",
    ),
    4: Sentence(
        "Forward KL covers all of the mass",
        "imprecise",
        "Le et al. (2020)",
    ),
    5: Sentence("Minimising forward KL is maximum likelihood", "imprecise", "Hinton et al. (1995)"),
    6: Sentence("Reverse KL takes a single mode", "imprecise", "Minka (2005)"),
    7: Sentence(
        "Reverse KL is the divergence of variational inference and VAEs",
        "imprecise",
        "Lucas et al. (2019)",
    ),
    8: Sentence(
        "Simple families have analytic gradients and cheap draws",
        "imprecise",
        "Ranganath et al. (2014)",
    ),
    9: Sentence(
        "Reverse KL has a stable landscape; start and settings matter little",
        "false",
        "Dhaka et al. (2020)",
    ),
    10: Sentence(
        "A simple q regularises, and generalises better", "false", "Turner and Sahani (2011)"
    ),
    11: Sentence("A good bound is a good approximation", "imprecise", "Huggins et al. (2020)"),
    12: Sentence(
        "The reverse KL of a VAE is that to the prior", "imprecise", "Kingma and Welling (2014)"
    ),
    13: Sentence(
        "Diagonal normals make reparametrisation possible", "imprecise", "Figurnov et al. (2018)"
    ),
    14: Sentence(
        "Mode-seeking helps against posterior collapse",
        "false",
        "Lucas et al. (2019); He et al. (2019)",
    ),
    15: Sentence("The E-step computes the posterior", "true", "Neal and Hinton (1998)"),
    16: Sentence(
        "The M-step maximises the likelihood, by forward KL", "imprecise", "Neal and Hinton (1998)"
    ),
    17: Sentence(
        "With a simpler q the E-step becomes feasible", "imprecise", "Turner and Sahani (2011)"
    ),
    18: Sentence("One of the divergences is the better one", "false", "Li and Turner (2016)"),
    19: Sentence("Mean-field factors come from exponential families", "false", "Bishop (2006)"),
    20: Sentence("Mean field enables coordinate ascent", "true", "Bishop (2006)"),
    21: Sentence("Mean field trades accuracy for speed", "true", "Giordano et al. (2018)"),
    22: Sentence("Forward KL is overly broad on several modes", "true", "Bishop (2006)"),
    23: Sentence("Normal guides underestimate extremes", "true", "Jaini et al. (2020)"),
    24: Sentence("Student-t guides mend the tails", "imprecise", "Vehtari et al. (2024)"),
    25: Sentence(
        "In high dimension the mass is far from the mode", "true", "Vehtari et al. (2024)"
    ),
    26: Sentence("High dimension asks for richer families", "imprecise", "Dhaka et al. (2021)"),
    27: Sentence("Mixtures capture several modes", "imprecise", "Morningstar et al. (2021)"),
    28: Sentence("Flows keep a tractable density", "imprecise", "Papamakarios et al. (2021)"),
    29: Sentence(
        "A guide q(global) ∏ q(local | global) is a hierarchical variational model",
        "imprecise",
        "Hoffman and Blei (2015); Ranganath et al. (2016)",
    ),
    30: Sentence("Amortisation gives flexibility", "false", "Cremer et al. (2018)"),
    31: Sentence(
        "The directions behave in fundamentally different ways", "imprecise", "Minka (2005)"
    ),
    32: Sentence("The direction should follow the application", "true", "tutorial 10"),
}


def as_markdown(because: dict[int, str]) -> str:
    """The table of all sentences, each with what decides it.

    Raises:
        KeyError: if a sentence is left undecided.
    """
    lines = [
        "| | the usual sentence | verdict | what decides it | read on |",
        "| --- | --- | --- | --- | --- |",
    ]
    for number, (words, verdict, read_on) in SENTENCES.items():
        cells = (str(number), words, f"**{verdict}**", because[number], read_on)
        escaped = (cell.replace("|", "\\|") for cell in cells)  # bars would end the cell
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)
