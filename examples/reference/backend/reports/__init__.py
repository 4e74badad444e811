"""A small reporting backend: numbers in, statistics out."""

__version__ = "1.0.0"
