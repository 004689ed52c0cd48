"""Ways to run a stack of cells over time, each proved equal to the plain loop."""
