"""Tools for lists, text and money."""
