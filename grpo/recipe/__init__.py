"""What a run is: the sections of a recipe, how they are read, and what may change when a run goes on."""
