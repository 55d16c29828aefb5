"""How a model starts, and how it grows from one stage of the curriculum to the next."""
