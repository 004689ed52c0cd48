"""A trained model behind HTTP: all requests share one continuous batch."""
