"""Lightning DataModules: a data set found, checked and batched."""
