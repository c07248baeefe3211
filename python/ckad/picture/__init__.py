"""Pictures of a plan: an HTML page, a PNG file, and the plain data that they are drawn from."""

from ckad.picture.data import FrontierPoint, LineCost

__all__ = ["FrontierPoint", "LineCost"]
