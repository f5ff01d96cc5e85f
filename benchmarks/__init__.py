"""Measurements: each printed as figures of one run on one machine, with its spread and, where there is one, its reference."""
