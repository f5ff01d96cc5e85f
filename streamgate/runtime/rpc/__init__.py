"""Contracts over gRPC: their protobuf form, the server, the client, service tokens, errors."""
