"""Traces of requests, for OpenTelemetry: an extra of the node.

`seam` is all that the rest of the node knows of while it works, and imports nothing; `beginning` imports the rest once
the configuration asks for traces. A request is traced if its client sent the context of a sampled trace, or by a share
of chance, within a rate. Its spans: one of kind SERVER at the door, and for each hop to a peer and each round trip to Postgres one of
kind CLIENT; the peer's own, of kind SERVER, is a child of the hop's.

Spans tell names and numbers: commands, configured caches, nodes, codes of errors. Never a key, a value, an argument, a token, the
text of an error; a tenant only where the configuration says so.
"""
