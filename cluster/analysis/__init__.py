"""What the answer of a query depends on: from SQL text, through Postgres' analysed tree, to tags."""
