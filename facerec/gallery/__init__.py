"""The watch list: SQLite is the authority, FAISS is rebuilt from it."""
