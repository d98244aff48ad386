"""Subresources, one file each. `protocol` says what one is; the assembly hands the server the list."""
