"""The subcommands of ``snapring``: each takes a `Run` and returns an exit code."""
