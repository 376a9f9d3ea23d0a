"""The application: settings, roles, and the factory that connects a declaration to a log."""
