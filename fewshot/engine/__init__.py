"""How a function of one episode is run: differentiated, mapped, normalised, compiled."""
