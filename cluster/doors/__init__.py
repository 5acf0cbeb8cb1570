"""The protocols that clients speak to a node."""
