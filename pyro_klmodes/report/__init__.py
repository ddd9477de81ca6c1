"""One self-contained page per comparison: words, tables and figures, no request to anywhere."""

from pyro_klmodes.report.page import PAGE, fragment, write_page

__all__ = ["PAGE", "fragment", "write_page"]
