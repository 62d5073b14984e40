"""Parts of the XGBoost flavor."""
