"""The types of the settings: what each accepts, and how its text is read."""

import re
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr


class Section(BaseModel):
    """A part of the settings. All keys are required, unknown keys are errors, and nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


Name = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


# The length of 96 random bits in base64. A shorter key can be guessed, or was chosen by a person.
KEY_LENGTH = 16
# Random keys of that length have more; "aaaaaaaaaaaaaaaa" or "abababababababab" has fewer.
KEY_CHARACTERS = 5
# A prefix that a proxy may put before all paths. Two slashes at its start would name a host; ".." would leave it.
PREFIX = r"(?:/(?!\.+(?:/|$))[A-Za-z0-9._~-]+)+"


def _check_key(key: SecretStr) -> SecretStr:
    # These characters need no quotes in a header, a shell or a program (RFC 6750, 2.1).
    if len(key) < KEY_LENGTH or not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", key.get_secret_value()):
        raise ValueError(f"a key needs {KEY_LENGTH} characters or more, only letters, digits and -._~+/=")
    if len(set(key.get_secret_value())) < KEY_CHARACTERS:
        raise ValueError(f"a key needs {KEY_CHARACTERS} different characters; make one: openssl rand -base64 24")
    return key


def _comma_separated(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        # If an empty list of keys were accepted, the service would be open.
        raise ValueError("it is set, but has only commas and blanks; leave it unset or empty for none")
    return parts


def _check_prefix(text: str) -> str:
    prefix = text.rstrip("/")
    if prefix and not re.fullmatch(PREFIX, prefix):
        raise ValueError("a path begins with / and has only letters, digits and -._~ between slashes")
    return prefix


def _check_network(text: str) -> str:
    ip_network(text)
    return text


def _check_different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("each model may be named once")
    return names


Key = Annotated[SecretStr, AfterValidator(_check_key)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s,*]+)$")]
Network = Annotated[str, AfterValidator(_check_network)]
Prefix = Annotated[str, AfterValidator(_check_prefix)]
CommaSeparated = BeforeValidator(_comma_separated)
Models = Annotated[tuple[Name, ...], CommaSeparated, AfterValidator(_check_different)]


class CanaryShare(Section):
    """A version of a model that answers a share of the photos, e.g. ``CAT-DOG/2=10%``. ``share``: above 0, below 1."""

    model: Name
    version: int = Field(ge=0)
    share: float = Field(gt=0, lt=1)


def _parse_canary(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(.+)/([0-9]{1,18})=([0-9]{1,2}(?:\.[0-9]{1,3})?)%", value, re.ASCII)
    if found is None:
        raise ValueError("a canary has the form MODEL/VERSION=PERCENT%, e.g. CAT-DOG/2=10%")
    return {"model": found[1], "version": int(found[2]), "share": float(found[3]) / 100}


Canary = Annotated[CanaryShare, BeforeValidator(_parse_canary)]
