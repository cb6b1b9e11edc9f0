"""The data check: what is wrong with a data set, and where."""
