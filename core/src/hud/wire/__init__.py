"""How an agent and an environment talk: frames, sessions, tunnels."""
