"""What ``python -m benchmarks`` compares: one file a contender, and the worker process that runs it."""
