"""Policies that nothing trains, to compare learned ones with."""
