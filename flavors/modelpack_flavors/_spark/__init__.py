"""Parts of the flavors for Spark ML."""
