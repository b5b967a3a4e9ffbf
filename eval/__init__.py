"""Protocols that turn scores into figures that can be believed."""
