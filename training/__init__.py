"""Training of the models that the runtime serves: data, student, evaluation, export. Run from the checkout; needs torch."""
