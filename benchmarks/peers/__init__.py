"""Second-order MAML by other means, one a file: `prepare(problem)` makes what is timed."""
