"""Detection in windows of large images, and merging of their detections."""
