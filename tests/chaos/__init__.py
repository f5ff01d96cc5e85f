"""Faults: nine processes that are killed and cut off while people upload and watch, and what must hold all the same."""
