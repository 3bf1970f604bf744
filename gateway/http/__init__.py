"""HTTP below the routes: the server, the guards before every route, and error responses."""
