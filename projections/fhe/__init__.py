"""Read models of encrypted computation: evaluation keys and jobs."""

from projections.fhe.fhe_jobs import FHE_JOBS
from projections.fhe.fhe_keys import FHE_KEYS
from projections.statements import View

VIEWS: list[View] = [FHE_KEYS, FHE_JOBS]
