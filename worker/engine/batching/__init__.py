"""What each decode step computes, and for which sequences."""
