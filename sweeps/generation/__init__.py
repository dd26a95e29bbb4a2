"""`ktrain generate`: runs a language model over the people of a plan, by an endpoint or through Ray Data."""
