"""Fine-tuning: from a snapshot to an adapter, as runs that queue, stop, resume and are compared."""
