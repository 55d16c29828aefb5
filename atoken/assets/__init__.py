"""3D assets: from tokens to Gaussians."""
