"""Every knob of a run and of the jobs, the choices that it offers, and the recipes."""
