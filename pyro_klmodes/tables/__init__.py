"""The numbers and words of a comparison: for pandas, for the terminal, and for files."""

from pyro_klmodes.numbers import count, short_number, with_spread
from pyro_klmodes.tables.conclusion import Conclusion, conclude
from pyro_klmodes.tables.files import draws_files, to_dict, write_draws, write_tables
from pyro_klmodes.tables.frames import fits_frame, parameters_frame
from pyro_klmodes.tables.terminal import fit_table, parameter_table, rendered
from pyro_klmodes.tables.written import MANIFEST, remove_earlier, written

__all__ = [
    "MANIFEST",
    "Conclusion",
    "conclude",
    "count",
    "draws_files",
    "fit_table",
    "fits_frame",
    "parameter_table",
    "parameters_frame",
    "remove_earlier",
    "rendered",
    "short_number",
    "to_dict",
    "with_spread",
    "write_draws",
    "write_tables",
    "written",
]
