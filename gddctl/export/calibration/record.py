"""The calibration record's old place; it is :mod:`gddctl.core.artifact.calibration`."""

from gddctl.core.artifact.calibration import CalibrationImage as CalibrationImage
from gddctl.core.artifact.calibration import CalibrationRecord as CalibrationRecord
from gddctl.core.artifact.calibration import preprocess_sha256 as preprocess_sha256
