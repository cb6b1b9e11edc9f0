"""Annotation files of each format to plain columns, and the folders in which data sets lie."""
