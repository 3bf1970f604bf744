"""The one core that every dialect calls: resolve settings, admit, route, stream, account."""
