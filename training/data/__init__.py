"""Labelled training images: rendered scenes, their storage, and augmentation."""
