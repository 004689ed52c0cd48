"""Text without torch: reading files, cleaning, tokenizing, counting, vocabularies."""
