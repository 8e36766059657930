"""The command line's commands, one file a group, imported only when asked for (torch takes seconds)."""
