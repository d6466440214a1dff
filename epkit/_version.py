"""The version, where the parts that need it reach it without the public names."""

__version__ = "0.1.0"
