"""Settings: HUD_* variables, hud.toml or [tool.hud], and ~/.hud, in one typed place.

`settings` reads variables; `project()` reads the nearest hud.toml. Both are read on first need.
"""

from hud.settings.hudtoml import Project as Project
from hud.settings.hudtoml import project as project
from hud.settings.hudtoml import read_project as read_project
from hud.settings.variables import Settings as Settings
from hud.settings.variables import get_settings as get_settings
from hud.settings.variables import settings as settings
