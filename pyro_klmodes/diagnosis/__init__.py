"""Can a fit be believed: all diagnostics of a finished inference in one, and what they mean."""

from pyro_klmodes.diagnosis.collapse import collapse
from pyro_klmodes.diagnosis.diagnose import diagnose
from pyro_klmodes.diagnosis.latent_use import Collapse, SiteUse
from pyro_klmodes.diagnosis.result import Diagnosis
from pyro_klmodes.diagnosis.second_opinion import SecondOpinion, second_opinion
from pyro_klmodes.diagnosis.verdict import TrustedEvidence, Verdict, verdict

__all__ = [
    "Collapse",
    "Diagnosis",
    "SecondOpinion",
    "SiteUse",
    "TrustedEvidence",
    "Verdict",
    "collapse",
    "diagnose",
    "second_opinion",
    "verdict",
]
