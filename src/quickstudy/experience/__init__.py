"""What was tried on which task, and what came of it."""
