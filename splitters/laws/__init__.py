"""The laws that every splitter keeps."""
