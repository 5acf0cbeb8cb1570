"""The targets, a module each: `made` gives one."""
