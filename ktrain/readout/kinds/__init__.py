"""One module for each kind of readout: how it is planned, costed, trained, scored, named in MLflow and drawn."""
