"""From an image file to pixels: its header, decoding, resizing, and a cache of headers."""
