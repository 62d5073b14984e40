"""Parts of the scikit-learn flavor."""
