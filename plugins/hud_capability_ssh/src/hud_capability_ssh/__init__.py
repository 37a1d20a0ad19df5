"""A sandboxed workspace over ssh: served inside an environment, driven by agents, judged by graders."""
