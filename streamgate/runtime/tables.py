"""Tables of the runtime: jobs, outbox, inbox."""
