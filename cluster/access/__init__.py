"""Who may come in, what they may do, how much of it, and the certificates of the doors."""
