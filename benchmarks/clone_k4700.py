"""The clone that the requirements are about: Teff 4700 K, 338,651 samples.  The others: clone_stars.py."""

import runpy
import sys
from pathlib import Path

sys.argv[1:] = ["k4700"]
runpy.run_path(str(Path(__file__).with_name("clone_stars.py")), run_name="__main__")
