"""The application: settings, roles, and the factory that builds the parts of a pipeline from its declaration."""
