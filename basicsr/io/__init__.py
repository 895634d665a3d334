"""Reading and writing images, photographs, videos and weights."""
