"""What the kernels that run these notebooks as tests inherit: nothing appears beside the outputs that are compared."""

import os

# Builds the font cache where there is none yet; in a cell that could take long enough to print a warning.
import matplotlib.font_manager  # noqa: F401

# A bar is an output too, and how far it got is a matter of time.
os.environ["EVENTLAB_PROGRESS"] = "off"
