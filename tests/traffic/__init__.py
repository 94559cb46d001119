"""What the control of a run costs in messages and bytes, as a cluster grows: fake nodes on one machine, no model."""
