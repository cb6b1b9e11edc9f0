"""What a detector looks at: images, folders, videos, cameras."""
