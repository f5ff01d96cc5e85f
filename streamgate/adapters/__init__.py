"""Ports made real, one file per backend. Each imports its port and the domain only."""
