"""Backbones, their cost, and the artefacts that carry them."""
