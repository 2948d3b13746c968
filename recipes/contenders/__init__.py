"""What recipes/benchmark.py compares: one file a contender, and the worker process that runs it."""
