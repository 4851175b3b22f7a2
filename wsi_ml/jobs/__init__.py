"""Background work: a durable queue, workers with leases, the processes that run them."""
