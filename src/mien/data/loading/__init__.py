"""Source rows to checked tables, in pieces of work that run in this process, in several, or on a cluster."""
