"""What happens to an image and its boxes before the network sees them."""

from detkit.data.augment.augmentation import Augmentation, ClassAugmentation

__all__ = ["Augmentation", "ClassAugmentation"]
