"""Text rendering: text, font, layout, colours and background of a synthetic image, and its caption."""
