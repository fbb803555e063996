"""The local HTTP interface, a module a subject; `create_app` puts them together."""
