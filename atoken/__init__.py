"""AToken: a unified visual tokenizer for images, videos and 3D assets."""
