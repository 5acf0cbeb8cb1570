"""The parts of the store: what stays and what leaves, the index by tag, times to live."""
