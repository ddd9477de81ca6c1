"""The layer is loaded from its files: importing the package itself would need torch."""

import sys
import types
from pathlib import Path

package = types.ModuleType("pyro_klmodes")
package.__path__ = [str(Path(__file__).parents[2] / "pyro_klmodes")]
sys.modules["pyro_klmodes"] = package
