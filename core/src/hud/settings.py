"""Settings: HUD_* variables, hud.toml or [tool.hud], and ~/.hud, in one typed place."""
