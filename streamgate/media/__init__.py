"""PyAV, in killable child processes only: probing, indexing, encoding, pictures."""
