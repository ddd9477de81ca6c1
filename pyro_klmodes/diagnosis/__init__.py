"""Can a fit be believed: all diagnostics of a finished inference in one, and what they mean."""

from pyro_klmodes.diagnosis.diagnose import diagnose
from pyro_klmodes.diagnosis.result import Diagnosis
from pyro_klmodes.diagnosis.second_opinion import SecondOpinion, second_opinion
from pyro_klmodes.diagnosis.verdict import TrustedEvidence, Verdict, verdict

__all__ = [
    "Diagnosis",
    "SecondOpinion",
    "TrustedEvidence",
    "Verdict",
    "diagnose",
    "second_opinion",
    "verdict",
]
