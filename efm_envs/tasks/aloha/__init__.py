"""Tasks for two arms across a table: the ALOHA station."""
