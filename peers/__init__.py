"""Who the other nodes are, and how to talk to them."""
