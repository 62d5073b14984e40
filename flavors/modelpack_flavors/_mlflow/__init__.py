"""Parts of the mlflow flavor."""
