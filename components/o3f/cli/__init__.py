"""The process: a recipe's command line, its messages, signals, sweeps, progress and doctor."""
