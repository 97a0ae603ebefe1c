"""Trained networks that judge or label augmented images: what they are called, what they say."""
