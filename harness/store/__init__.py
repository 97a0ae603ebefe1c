"""The folder of finished stages: identity, atomic files, claims, rows."""
