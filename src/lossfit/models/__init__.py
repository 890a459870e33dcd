"""Models: images (N, C, H, W) float, normalised -> logits (N, num_classes).

Every constructor takes num_classes and image_shape (C, H, W), which the data module supplies, and its own options.
"""
