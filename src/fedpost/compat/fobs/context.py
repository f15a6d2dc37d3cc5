"""The keys of what callers tell decomposers."""

from __future__ import annotations

from typing import Final

__all__ = ["FOBSContextKey"]


class FOBSContextKey:
    """Keys of ``fobs_ctx``. All but the last are FOBS' own, for decomposers; nothing here reads them.

    Attributes:
        LIMITS: A :class:`fedpost.frame.Limits`: how much is read.
    """

    CELL: Final = "cell"
    CORE_CELL: Final = "core_cell"
    MESSAGE: Final = "message"
    ABORT_SIGNAL: Final = "abort_signal"
    DOWNLOAD_REQ_TIMEOUT: Final = "download_req_timeout"
    SEC_CREDS: Final = "sec_creds"
    NUM_RECEIVERS: Final = "num_receivers"
    RECEIVER_IDS: Final = "receiver_ids"
    PASS_THROUGH: Final = "pass_through"  # noqa: S105 - no password
    TENSOR_DISK_OFFLOAD: Final = "enable_tensor_disk_offload"
    DOWNLOAD_COMPLETE_CB: Final = "download_complete_cb"
    STREAM_PROGRESS_CB: Final = "stream_progress_cb"
    LIMITS: Final = "fedpost_limits"
