"""Parts of the torch flavor."""
