"""Datasets of frames that others have labelled."""
