"""Windows over large images, and their detections merged."""
