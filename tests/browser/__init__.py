"""The page in a real Chromium: what a person sees, found by role and name."""
