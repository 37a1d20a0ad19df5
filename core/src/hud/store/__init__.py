"""Job files: one writer that is told of events, and readers of what it wrote."""
