"""Face recognition for surveillance: clean, train, search a watch list, evaluate."""

__version__ = "0.1.0"
