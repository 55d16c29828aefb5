"""Training: image reconstruction today, built so that the paper's curriculum can grow from it.

recipe -> data -> init -> trainer -> evaluate; `cli.train` is the command `atoken train`.
"""
