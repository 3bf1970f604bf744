"""The names of the resources. Pure: a URI is taken apart by its template, and never becomes a path."""

from mcp.shared.uri_template import UriTemplate

SCHEME = "atelier://"
METRICS = f"{SCHEME}metrics"

TEMPLATES = {
    "models": UriTemplate.parse(f"{SCHEME}models/{{+key}}"),  # keys and ids have slashes
    "instances": UriTemplate.parse(f"{SCHEME}instances/{{+id}}"),
    "presets": UriTemplate.parse(f"{SCHEME}presets/{{name}}"),
    "logs": UriTemplate.parse(f"{SCHEME}logs/{{name}}"),
}
"""One entry of each kind."""


def list_uri(kind: str) -> str:
    return f"{SCHEME}{kind}"


def entry_uri(kind: str, name: str) -> str:
    template = TEMPLATES[kind]
    return template.expand({template.variable_names[0]: name})


def kind_of(uri: str) -> tuple[str, str | None] | None:
    """The kind, and the name of the entry; None instead of a name for the list, of all for what is no resource."""
    for kind, template in TEMPLATES.items():
        if uri == list_uri(kind):
            return kind, None
        if found := template.match(uri):
            return kind, str(found[template.variable_names[0]])
    return None
