"""Numeric kernels of the lossy codecs: pure functions from arrays to bytes and back.

Rules: the layout of the bytes stands in each module's docstring, complete enough for a second implementation; a decoder
checks every count before it allocates, gives the same bits on every machine, and raises nothing but ``DecodeError``.
"""
