"""Records and the paper's numbers in, tables and pages out. Never imports torch."""
