"""Models of outcomes that a search has seen, and what to try next by them."""
