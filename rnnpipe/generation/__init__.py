"""From a trained model to text: prompts, samplers, the one draw, batches."""
