"""The functions of ``nvflare.fuel.utils.fobs.fobs``, where programs import them from there."""

from fedpost.compat.fobs.operations import deserialize, deserialize_stream, serialize, serialize_stream
from fedpost.compat.fobs.registration import (
    add_type_name_whitelist,
    auto_register_data_classes,
    auto_register_enum_types,
    get_dot_handler,
    num_decomposers,
    register,
    register_custom_folder,
    register_data_classes,
    register_enum_types,
    register_folder,
    reset,
)

__all__ = [
    "add_type_name_whitelist",
    "auto_register_data_classes",
    "auto_register_enum_types",
    "deserialize",
    "deserialize_stream",
    "get_dot_handler",
    "num_decomposers",
    "register",
    "register_custom_folder",
    "register_data_classes",
    "register_enum_types",
    "register_folder",
    "reset",
    "serialize",
    "serialize_stream",
]
