"""Model files: read from anywhere, validated, never unpickled."""
