"""The annotations of a split as flat arrays, checked and repaired in memory."""
