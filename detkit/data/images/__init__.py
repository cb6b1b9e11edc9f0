"""An image file on disk to pixels: header, decoding, resizing, and what is kept of them."""
