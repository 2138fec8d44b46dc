"""Re-colouring of drawings that have one dominant hue.

Knows pixels, nothing of scenes or sentences.
"""

COLOURABLE: dict[str, str] = {"car": "red", "book": "red", "balloon": "red", "frog": "green", "tent": "orange"}
"""Classes that can be re-coloured, with the colour of their drawing."""
