"""Machinery shared by all plugins, over the database and the wire: jobs, outbox, HTTP, telemetry."""
