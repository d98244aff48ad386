"""Admission: what may change or refuse a write after authorization, in upstream's order (see PLUGINS in plugins.py)."""
