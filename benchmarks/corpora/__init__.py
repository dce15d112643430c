"""Experience that we made ourselves: small tasks, and what became of many choices on each."""
