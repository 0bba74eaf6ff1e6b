"""Text formats that several parts of the package read: i-PI's columns, XYZ frames."""
