"""Sections of the settings that have rules of their own, and what every section is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator


def _hyphened(name: str) -> str:
    return name.replace("_", "-")


ServiceName = Annotated[str, BeforeValidator(_hyphened)]
"""A service's name. Names of environment variables have no hyphen: ``API_GATEWAY`` in one is ``api-gateway``."""


class Section(BaseModel):
    """A part of the settings: immutable, nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSection(Section):
    cert_file: Path = Field(
        description="The service's certificate and its chain, PEM; among its DNS names is the service's, such as `metadata`."
    )
    key_file: Path = Field(description="Its private key, PEM.")
    ca_file: Path = Field(description="Certificates of the authority by which other services are known, PEM.")


class DiscoverySection(Section):
    backend: Literal["static", "dns", "consul"] = Field(
        "static",
        description="Where other services are found: `static` (the list below), `dns` (every address of a name) or `consul`.",
    )
    services: dict[ServiceName, tuple[str, ...]] = Field(
        default_factory=dict, description="Service name → addresses `host:http_port`, for the static backend."
    )
    dns_name: str = Field(
        "{service}",
        description="Name of a service for the dns backend, such as `streamgate-{service}.films.svc.cluster.local`.",
    )
    consul_address: str | None = Field(None, description="Consul's HTTP API, such as `http://127.0.0.1:8500`.")
    consul_token: SecretStr | None = Field(None, description="ACL token for Consul.")
    advertise: str | None = Field(
        None,
        description="Host at which other services reach this process, for the consul backend; default `host`, or the machine's "
        "own address where that is a wildcard.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.backend == "consul" and self.consul_address is None:
            raise ValueError("the consul backend needs discovery.consul_address (or CONSUL_ADDRESS)")
        if self.dns_name.replace("{service}", "").count("{") or "{service}" not in self.dns_name:
            raise ValueError("discovery.dns_name must hold {service} and no other field")
        return self
