"""LanguageTable: push coloured blocks about a board, as an instruction says."""
