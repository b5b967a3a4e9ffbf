"""OpenCV's own messages, which no user can act on."""

from __future__ import annotations

from typing import Any


def quiet_opencv() -> None:
    """Keep OpenCV's own messages off standard error: what fails comes out as an exception."""
    import cv2

    logging: Any = getattr(cv2.utils, "logging", None)
    if logging is not None and logging.getLogLevel() > logging.LOG_LEVEL_FATAL:
        logging.setLogLevel(logging.LOG_LEVEL_FATAL)
