"""What gives images, videos and 3D assets a vector that is compared with texts: the contract and its adapters."""
