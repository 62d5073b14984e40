"""Parts of the LightGBM flavor."""
