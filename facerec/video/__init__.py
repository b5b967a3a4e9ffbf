"""Frames, tracks and one template a track."""
