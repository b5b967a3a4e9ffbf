"""Images, manifests, sources and synthetic identities."""
