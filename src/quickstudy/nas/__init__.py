"""Architecture search that remembers."""
