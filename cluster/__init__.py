"""One node: the path of a read from a door, through memory, to Postgres and back."""
