"""The flavors that come with modelpack: one file for each framework, found by name (modelpack.flavor)."""
