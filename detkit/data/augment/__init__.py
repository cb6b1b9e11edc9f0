"""What happens to an image and its boxes before the network sees them."""
