"""The HTML pages with pictures: of an evaluation, and what all pages share."""
