"""What the flavors xgboost and lightgbm have in common."""
