"""The folder of stages: their identity, claims, results and provenance. No module needs torch."""

from harness.store.claims import Claim, ClaimLost, try_claim
from harness.store.identity import stage_id, trial_id
from harness.store.store import Store

__all__ = ["Claim", "ClaimLost", "Store", "stage_id", "trial_id", "try_claim"]
