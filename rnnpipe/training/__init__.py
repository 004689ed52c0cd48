"""Fitting: the training loop, schedules, optimizers, callbacks, checkpoints, metrics, evaluation."""
