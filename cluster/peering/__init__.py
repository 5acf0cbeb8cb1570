"""How one node asks the others, and answers them."""
