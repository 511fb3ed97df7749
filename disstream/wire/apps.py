"""Bodies of the app calls (API 5.2)."""
