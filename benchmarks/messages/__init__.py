"""Control messages of federated learning, as plain values: what coordinators and sites tell each other around a round.

Rules: each is what such a message holds in practice, 20 to 200 small values in dictionaries, tuples and sets, an
enumeration, a dataclass, two small arrays; nothing in them is random.
"""

from messages.control import CLASSES, ENUMERATIONS, MESSAGES, samples

__all__ = ["CLASSES", "ENUMERATIONS", "MESSAGES", "samples"]
