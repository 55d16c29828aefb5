"""Tokenizers behind one adapter contract."""
