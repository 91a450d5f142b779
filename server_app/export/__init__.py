"""Export and use of a trained model: manifest, formats, model card, and predictions for files."""
