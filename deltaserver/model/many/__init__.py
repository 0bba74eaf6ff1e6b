"""Many molecules: fragment models shared by all of a species, binding models by every pair."""
