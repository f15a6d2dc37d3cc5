"""syft-rpc's serialization and its requests through a synchronised folder, under the names that its users know.

Rules: names and arguments are the original's; what it left unsafe is not. What crosses the folder are files, each seen
whole or not at all, that hold a :class:`~fedpost.frame.Frame`; reading one runs no code and imports nothing. A request
is executed at most once. Encryption that is asked for is refused until it is built, never left out.
"""

from fedpost.compat.syft_rpc.datasites import Client
from fedpost.compat.syft_rpc.endpoints import Response
from fedpost.compat.syft_rpc.errors import SyftError, SyftStatusError, SyftTimeoutError, SyftTransportError
from fedpost.compat.syft_rpc.events import SyftEvents
from fedpost.compat.syft_rpc.futures import SyftBulkFuture, SyftFuture
from fedpost.compat.syft_rpc.messages import SyftRequest, SyftResponse
from fedpost.compat.syft_rpc.private import DatasetReference, PrivateData, mark_private
from fedpost.compat.syft_rpc.registering import register, register_deserializer, register_serializer
from fedpost.compat.syft_rpc.rpc import broadcast, reply_to, send
from fedpost.compat.syft_rpc.serialization import deserialize, serialize
from fedpost.compat.syft_rpc.status import SyftMethod, SyftStatus
from fedpost.compat.syft_rpc.url import SyftBoxURL, make_url

__all__ = [
    "Client",
    "DatasetReference",
    "PrivateData",
    "Response",
    "SyftBoxURL",
    "SyftBulkFuture",
    "SyftError",
    "SyftEvents",
    "SyftFuture",
    "SyftMethod",
    "SyftRequest",
    "SyftResponse",
    "SyftStatus",
    "SyftStatusError",
    "SyftTimeoutError",
    "SyftTransportError",
    "broadcast",
    "deserialize",
    "make_url",
    "mark_private",
    "register",
    "register_deserializer",
    "register_serializer",
    "reply_to",
    "send",
    "serialize",
]
