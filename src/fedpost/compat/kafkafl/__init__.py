"""The serialization of Kafka-based federated learning, under the names that its users know, on fedpost's layers.

Rules: names, arguments and return values are the original's; what it left unsafe, unchecked or ignored is not. A
package is a :class:`~fedpost.frame.Frame`, and reading one runs no code. Errors are :class:`SerializationError` and
fedpost's own at once. A configuration that asks for what is not there is refused, never ignored.
"""

from fedpost.compat.kafkafl.differential import DifferentialUpdateManager
from fedpost.compat.kafkafl.errors import (
    PackageDecodeError,
    PackageEncodeError,
    PackageExtraError,
    PackageIntegrityError,
    PackageLimitError,
    PackageTruncatedError,
    PackageUnsupportedError,
    SerializationError,
)
from fedpost.compat.kafkafl.metadata import CompressionType, SerializationFormat, SerializationMetadata
from fedpost.compat.kafkafl.optimizer import CompressionOptimizer
from fedpost.compat.kafkafl.package import PackageInfo
from fedpost.compat.kafkafl.profiler import SerializationProfiler
from fedpost.compat.kafkafl.serializer import AdvancedSerializer
from fedpost.compat.kafkafl.settings import (
    CommunicationSettings,
    KafkaSettings,
    KafkaTopics,
    PerformanceSettings,
    PrivacySettings,
    SecuritySettings,
    SerializationSettings,
    Settings,
)
from fedpost.compat.kafkafl.template import load_settings
from fedpost.compat.kafkafl.weights import ProtocolBufferSerializer, WeightSerializer

__all__ = [
    "AdvancedSerializer",
    "CommunicationSettings",
    "CompressionOptimizer",
    "CompressionType",
    "DifferentialUpdateManager",
    "KafkaSettings",
    "KafkaTopics",
    "PackageDecodeError",
    "PackageEncodeError",
    "PackageExtraError",
    "PackageInfo",
    "PackageIntegrityError",
    "PackageLimitError",
    "PackageTruncatedError",
    "PackageUnsupportedError",
    "PerformanceSettings",
    "PrivacySettings",
    "ProtocolBufferSerializer",
    "SecuritySettings",
    "SerializationError",
    "SerializationFormat",
    "SerializationMetadata",
    "SerializationProfiler",
    "SerializationSettings",
    "Settings",
    "WeightSerializer",
    "load_settings",
]
