"""The HTML pages: figures, tables and the browser of errors."""
