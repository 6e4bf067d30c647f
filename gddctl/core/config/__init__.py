"""Settings: frozen, strict, checked at the door."""
