"""Teachers at work: plans, requests, the ledger, batches, judges and probes."""
