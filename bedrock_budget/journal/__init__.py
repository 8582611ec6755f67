"""What was settled and is not in the store yet, on disk, so that it survives the end of the process."""
