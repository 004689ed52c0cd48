"""Networks: `Recurrent`, a stack of any cell, and the models built on it."""
