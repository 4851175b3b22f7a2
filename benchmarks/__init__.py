"""One file per claim, each printed by one command, the peer in the same run; tables in `results/` are committed."""
