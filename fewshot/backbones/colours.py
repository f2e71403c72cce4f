"""The colours themselves as feature maps: the baseline that learned maps must beat."""

from torch import Tensor

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone, checked_images
from fewshot.episodes.types import Inputs


class Colours(Backbone):
    """Colours: each pixel's colour is its feature, from -1/2 to 1/2, nothing learned. Paper: none.

    PANet on it labels a pixel by the mean colour of background and classes; it needs no training
    (``fewshot test``).

    Args:
        in_channels: C of the images.
        image_size: H = W of the images, in pixels.
    """

    def __init__(self, in_channels: Count, image_size: Count = 84) -> None:
        super().__init__()
        self.in_channels, self.image_size = in_channels, image_size
        self.map_shape = (in_channels, image_size, image_size)
        self.out_features = in_channels

    def forward(self, inputs: Inputs) -> Tensor:
        """The mean colour (n, C) of images (n, C, H, W) in [0, 1]."""
        return self.maps(inputs).mean((2, 3))

    def maps(self, inputs: Inputs) -> Tensor:
        """The colours centred on grey, (n, C, H, W).

        A cosine between colours in [0, 1] would see their brightness alone.
        """
        return checked_images(inputs, self.in_channels, self.image_size, "Colours") - 0.5
