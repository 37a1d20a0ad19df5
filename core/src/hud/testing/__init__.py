"""Contract kits and fakes, for plugin authors and for ourselves; needs pytest."""
