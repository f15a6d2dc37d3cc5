"""The schema of the format ``protobuf``, and what protoc makes of it; only imported with ``fedpost[protobuf]``."""
