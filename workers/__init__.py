"""What runs: router, aggregator, trainer, replay, customers, metrics, command line."""
