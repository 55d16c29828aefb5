"""Runs that compare embeddings with texts: one pass over the samples, kept vectors, top-k accuracy and recalls."""
