"""Image files and pixels: listing, decoding, resizing."""
