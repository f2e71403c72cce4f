"""The function of one episode as compiled code that can still be differentiated."""
