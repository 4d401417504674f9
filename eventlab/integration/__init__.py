"""Events from and for the world outside: `ingest` takes frames and files, `export` gives them back."""
