"""Read models of encrypted computation: evaluation keys, their uploads, and jobs."""

from projections.fhe.fhe_jobs import FHE_JOBS
from projections.fhe.fhe_key_uploads import FHE_KEY_UPLOAD_PARTS, FHE_KEY_UPLOADS
from projections.fhe.fhe_keys import FHE_KEYS
from projections.statements import View

VIEWS: list[View] = [FHE_KEYS, FHE_KEY_UPLOADS, FHE_KEY_UPLOAD_PARTS, FHE_JOBS]
