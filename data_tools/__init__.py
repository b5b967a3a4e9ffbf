"""The cleaning engine: every decision scored, logged and reversible."""
