"""Parts of the transformers flavor."""
