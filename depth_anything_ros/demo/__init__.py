"""The demonstration: a camera, a recorder, and what ties them to the node."""
