"""Drawn faces: seeded, parametric, free of licence; always called synthetic.

Identity, pose, light and disturbances are drawn at random; expressions are built from facial action
units (Ekman & Friesen, FACS) in the combinations of EMFACS, with varying strength.
"""

from mien.synthetic.faces import Face, draw_face

__all__ = ["Face", "draw_face"]
