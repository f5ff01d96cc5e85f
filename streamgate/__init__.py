"""StreamGate: self-hosted video whose doors open by what a wallet holds."""

__version__ = "0.1.0"
