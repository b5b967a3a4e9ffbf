"""What a sealed value is bound to: moved to another row or another gallery, it does not open."""

from __future__ import annotations

from facerec.gallery.store import Store


def person_context(uid: str) -> str:
    """Return what a person's data key is bound to."""
    return f"person {uid}"


def sample_context(store: Store, uid: str, picture_sha256: str) -> str:
    """Return what a sample's embedding is bound to."""
    return f"sample {uid} {picture_sha256} {store.model.hash}"


def picture_context(uid: str, picture_sha256: str) -> str:
    """Return what a kept picture is bound to."""
    return f"picture {uid} {picture_sha256}"


def template_context(uid: str, version: int) -> str:
    """Return what a template is bound to."""
    return f"template {uid} {version}"


def cohort_context(store: Store) -> str:
    """Return what the rows of a cohort are bound to."""
    return f"cohort {store.collection.uid} {store.model.hash}"
