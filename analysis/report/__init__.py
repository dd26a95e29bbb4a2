"""Tables, the headline, and the report page."""
