"""What an index holds, and how two differ: counts, what looks wrong, contact sheets, text for a terminal."""
