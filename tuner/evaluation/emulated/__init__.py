"""Evaluation on the virtual clock: engines of text, services of images and videos."""
