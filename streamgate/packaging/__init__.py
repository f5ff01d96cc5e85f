"""Timelines, CMAF segments and playlists with plain bytes and numbers. Never imports `av`."""
