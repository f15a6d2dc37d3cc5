"""Frames between peers; one module a medium."""

from fedpost.transports.mailbox import MailboxEndpoint
from fedpost.transports.transport import (
    TRANSPORTS,
    Delivery,
    Endpoint,
    Guarantees,
    check_address,
    open_endpoint,
    path_of,
)

__all__ = [
    "TRANSPORTS",
    "Delivery",
    "Endpoint",
    "Guarantees",
    "MailboxEndpoint",
    "check_address",
    "open_endpoint",
    "path_of",
]
