"""atoken-bench: runs every experiment of the paper on any tokenizer and keeps the evidence."""
