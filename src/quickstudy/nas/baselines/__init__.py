"""What any search has to be better than: one method a file."""
