"""Corruptions of images for evaluation: noise, blur, weather and digital ones, at 5 severities.

from harness.corrupt import CORRUPTIONS, SEVERITIES, corrupt

images_u8 = corrupt(images_u8, ids, "fog", severity=3)

The corruptions are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations" (ICLR 2019). Of the library imagecorruptions-imaug (Apache
2.0) they have the definitions and the parameters. It is not used itself: it draws from NumPy's
global generator, so an image depends on the order of calls; it has no parameters for images below
32 pixels; and it requires OpenCV with its graphical interface.
"""

from harness.corrupt.corruptions import CORRUPTIONS, VERSION, corrupt
from harness.corrupt.severities import SEVERITIES

__all__ = ["CORRUPTIONS", "SEVERITIES", "VERSION", "corrupt"]
