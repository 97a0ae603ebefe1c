"""Model families with a width, one file each."""
