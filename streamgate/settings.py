"""Settings: one model per section, one section per plugin, nothing unknown accepted.

Later ones win: the code's defaults, ``config/base.yaml``, ``config/services/<name>.yaml``, ``config/env/<environment>.yaml``,
the file of ``--config``, the environment (``STREAMGATE_<SECTION>__<KEY>``, JSON for lists and maps), flags. A secret may stand
in a file named by the same variable with ``_FILE`` at its end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from streamgate.domain.errors import ConfigurationError
from streamgate.kernel.registry import AnyPlugin
from streamgate.sections import DiscoverySection, Section, ServiceName, TlsSection

PREFIX = "STREAMGATE_"
ALIASES = {
    "DATABASE_URL": ("database", "url"),
    "NATS_URL": ("bus", "url"),
    "REDIS_URL": ("cache", "url"),
    "CONSUL_ADDRESS": ("discovery", "consul_address"),
}
"""Variables that other tools set, and the setting each one stands for (when that setting exists)."""

OWN_VARIABLES = {"STREAMGATE_API_KEY", "STREAMGATE_CONFIG_DIR", "STREAMGATE_SERVER"}
"""Variables of the command line that are no settings."""


class DatabaseSection(Section):
    url: SecretStr | None = Field(
        None,
        description="SQLAlchemy URL; default: SQLite in the data directory (`sqlite+aiosqlite:///<data-dir>/streamgate.db`).",
    )


class S3Section(Section):
    endpoint: str = Field(description="Address of the S3 service, such as `https://s3.example`.")
    bucket: str = Field(description="The bucket; its objects are the product's alone.")
    access_key: SecretStr = Field(description="Access key id.")
    secret_key: SecretStr = Field(description="Secret access key.")
    region: str = Field("us-east-1", description="Region that requests are signed for.")
    public_endpoint: str | None = Field(
        None, description="How viewers reach the same service, for `delivery.mode: redirect`; default `endpoint`."
    )
    create_bucket: bool = Field(False, description="Make the bucket when there is none.")


class StorageSection(Section):
    backend: Literal["local", "s3"] = Field("local", description="Where objects lie: `local` (a folder) or `s3`.")
    path: Path | None = Field(None, description="Folder of the local backend; default `<data-dir>/objects`.")
    shared: bool = Field(False, description="All services see the same folder, so that it may be used between them.")
    s3: S3Section | None = Field(
        None,
        description="The s3 backend: `endpoint bucket access_key secret_key region public_endpoint create_bucket`.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.backend == "s3" and self.s3 is None:
            raise ValueError("the s3 backend needs storage.s3 (endpoint, bucket, access_key, secret_key)")
        return self


class ServiceSection(Section):
    public_key_file: Path = Field(description="Its public key: Ed25519 in PEM.")


class CacheSection(Section):
    backend: Literal["memory", "redis"] = Field(
        "memory",
        description="Where cached values and the counts of rate limits lie: `memory` (this process) or `redis` (shared).",
    )
    url: SecretStr | None = Field(None, description="The Redis server, such as `redis://127.0.0.1:6379/0`.")
    memory_bytes: int = Field(32 << 20, ge=1 << 20, description="Most bytes of values that the in-process cache keeps.")

    @model_validator(mode="after")
    def _has_url(self) -> Self:
        if self.backend == "redis" and self.url is None:
            raise ValueError("the redis backend needs cache.url (or REDIS_URL)")
        return self


class BusSection(Section):
    backend: Literal["memory", "nats"] = Field(
        "memory", description="What carries facts and signals: `memory` (this process) or `nats` (JetStream)."
    )
    url: SecretStr | None = Field(None, description="NATS servers, comma separated, such as `nats://127.0.0.1:4222`.")
    replicas: int = Field(1, ge=1, le=5, description="Copies of the stream of facts that NATS keeps.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.backend == "nats" and self.url is None:
            raise ValueError("the nats backend needs bus.url (or NATS_URL)")
        return self


class ChainSection(Section):
    endpoints: tuple[SecretStr, ...] = Field(description="JSON-RPC URLs of the chain, in order of preference.")

    @field_validator("endpoints")
    @classmethod
    def _are_urls(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not value:
            raise ValueError("at least one endpoint is needed")
        if not all(url.get_secret_value().startswith(("http://", "https://")) for url in value):
            raise ValueError("endpoints are http:// or https:// URLs")
        return value


class DeliverySection(Section):
    media_url: str | None = Field(None, description="Public address of media when it differs from `public_url`.")
    mode: Literal["direct", "redirect"] = Field(
        "direct",
        description="`direct`: media comes from this process; `redirect`: stored objects come from the object store by an "
        "address that ends soon, where the store can sign such addresses.",
    )
    redirect_s: int = Field(20, ge=1, le=30, description="Seconds that such an address is good for.")


ChainId = Annotated[str, Field(pattern=r"^[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}$")]


class CoreSettings(BaseSettings):
    """What the process itself is told; every plugin adds its own section."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__")

    environment: Literal["development", "production"] = Field(
        "development", description="`production` refuses weak secrets and logs JSON."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int | None = Field(
        None, ge=1, le=65535, description="Port to listen on; default: the service's own (8080 for the monolith)."
    )
    public_url: str | None = Field(
        None,
        description="Where people reach the product, such as `https://films.example`; default: the address it listens on.",
    )
    allowed_origins: tuple[str, ...] | None = Field(
        None, description="Origins that may call the API from a browser and sign in; default: that of `public_url`."
    )
    data_dir: Path = Field(Path("data"), description="Local state: database, objects, keys, scratch.")
    shutdown_timeout: float = Field(25.0, ge=1, le=600, description="Seconds that a stop may take before it is forced.")
    header_timeout: float = Field(
        20.0, ge=1, le=300, description="Seconds that a client has for the headers of a request."
    )
    body_timeout: float = Field(
        60.0,
        ge=1,
        le=600,
        description="Seconds that a request's body may keep us waiting, beyond a second for each KiB that came.",
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Networks of the proxies whose `X-Forwarded-For` is believed; default none."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, else JSON."
    )
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token that opens `/metrics` from elsewhere than loopback."
    )
    database: DatabaseSection = DatabaseSection()
    storage: StorageSection = StorageSection()
    cache: CacheSection = CacheSection()
    bus: BusSection = BusSection()
    discovery: DiscoverySection = DiscoverySection()
    service_key_file: Path | None = Field(
        None, description="Private key of this service (Ed25519, PEM), where services run apart."
    )
    services: dict[ServiceName, ServiceSection] = Field(
        default_factory=dict,
        description="Service name → the key that its calls are signed with: `public_key_file`. Also "
        "`STREAMGATE_SERVICES__API_GATEWAY__PUBLIC_KEY_FILE` and so on.",
    )
    grpc_reflection: bool = Field(False, description="Let gRPC clients ask which methods there are.")
    grpc_tls: TlsSection | None = Field(
        None, description="Mutual TLS between services, over gRPC: `cert_file key_file ca_file`; default none."
    )
    chains: dict[ChainId, ChainSection] = Field(
        default_factory=dict, description="CAIP-2 chain id → how it is read; default none."
    )
    delivery: DeliverySection = DeliverySection()

    @field_validator("public_url")
    @classmethod
    def _is_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if (
            not value.startswith(("http://", "https://"))
            or value.count("/") > 3
            or "@" in value
            or value.rstrip("/").count("/") != 2
        ):
            raise ValueError("it must be a scheme, a host and perhaps a port, such as https://films.example")
        return value.rstrip("/")


def model_for(plugins: Sequence[AnyPlugin]) -> type[CoreSettings]:
    """The settings model of a process: the core, and a section for each plugin under its name.

    A plugin whose section is one of the core's (``cache``) adds its fields to it.
    """
    sections: dict[str, Any] = {}
    for plugin in plugins:
        model: type[BaseModel] = plugin.settings
        core = CoreSettings.model_fields.get(plugin.section)
        if core is not None:
            if not (isinstance(core.annotation, type) and issubclass(core.annotation, Section)):
                raise ConfigurationError(f"Plugin {plugin.name} cannot have the settings section {plugin.section!r}.")
            model = create_model(f"{model.__name__}AndCore", __base__=(core.annotation, model))
        sections[plugin.section] = (model, Field(default_factory=model))
    return create_model("Settings", __base__=CoreSettings, **sections)


def load(
    plugins: Sequence[AnyPlugin],
    *,
    service: str,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    known_sections: frozenset[str] = frozenset(),
) -> CoreSettings:
    """The settings of this process; `ConfigurationError`, in one sentence, for anything wrong with them.

    ``known_sections``: sections of plugins that are installed but not loaded here; what they are told is left alone, so that
    all services can share one environment and one file.
    """
    environ = os.environ if environ is None else environ
    model = model_for(plugins)
    others = known_sections - frozenset(model.model_fields)
    overrides = dict(flags or {})
    variables = _variables(environ, frozenset(model.model_fields), others, model)
    files = _files(service, environ, config_file, overrides)

    class Loaded(model):  # type: ignore[valid-type, misc]
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, _Variables(settings_cls, variables), _Files(settings_cls, files, others))

    try:
        return Loaded(**overrides)
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from error
    except SettingsError as error:
        raise ConfigurationError(f"A setting in the environment is no valid JSON: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"A configuration file is no valid YAML: {str(error).splitlines()[0]}.") from error


class _Variables(EnvSettingsSource):
    """The environment, as given and not as the process has it."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items()}


class _Files(YamlConfigSettingsSource):
    """The YAML files, merged in depth, without the sections of services that run elsewhere."""

    def __init__(self, settings_cls: type[BaseSettings], files: list[Path], others: frozenset[str]) -> None:
        self._others = others
        super().__init__(settings_cls, files, deep_merge=True)

    def _read_file(self, path: Any) -> dict[str, Any]:
        content = super()._read_file(path)
        if not isinstance(content, dict):
            raise ConfigurationError(f"The configuration file {path} must hold a mapping of sections.")
        return {name: value for name, value in content.items() if name not in self._others}


def configuration_folder(environ: Mapping[str, str]) -> Path | None:
    """Where base.yaml and its companions lie: ``STREAMGATE_CONFIG_DIR``, else ``config`` here, else the packaged one."""
    if named := environ.get("STREAMGATE_CONFIG_DIR"):
        if not Path(named).is_dir():
            raise ConfigurationError(f"STREAMGATE_CONFIG_DIR names {named}, which is no folder.")
        return Path(named)
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "config", here / "_config"):
        if (folder / "base.yaml").is_file():
            return folder
    return None


def _files(service: str, environ: Mapping[str, str], given: Path | None, overrides: Mapping[str, Any]) -> list[Path]:
    files: list[Path] = []
    folder = configuration_folder(environ)
    if folder is not None:
        stage = overrides.get("environment") or environ.get(f"{PREFIX}ENVIRONMENT") or "development"
        files += [folder / "base.yaml", folder / "services" / f"{service}.yaml", folder / "env" / f"{stage}.yaml"]
    if given is not None:
        if not given.is_file():
            raise ConfigurationError(f"The configuration file {given} does not exist.")
        files.append(given)
    return files


def _variables(
    environ: Mapping[str, str], own: frozenset[str], others: frozenset[str], model: type[CoreSettings]
) -> dict[str, str]:
    """The variables that are settings of this process, aliases resolved, ``_FILE`` read; unknown ones refused."""
    found: dict[str, str] = {}
    for alias, (section, key) in ALIASES.items():
        if alias in environ and _has(model, section, key):
            found[f"{PREFIX}{section}__{key}".upper()] = environ[alias]
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in OWN_VARIABLES:
            continue
        section, _, key = name[len(PREFIX) :].lower().partition("__")
        if section in others:
            continue
        if section not in own and not name.endswith("_FILE"):
            raise ConfigurationError(f"{name} names no setting: there is no section or key {section!r}.")
        if name.endswith("_FILE") and not _has(model, section, key):
            found[name[: -len("_FILE")]] = _content(name, value)
        else:
            found[name] = value
    return found


def _has(model: type[BaseModel], section: str, key: str) -> bool:
    """Whether there is such a setting; parts of ``key`` are separated by two underscores."""
    inside: Any = model
    for part in (section, *key.split("__")) if key else (section,):
        if get_origin(inside) is dict:
            inside = get_args(inside)[1]
            continue
        choices = [one for one in (inside, *get_args(inside)) if isinstance(one, type) and issubclass(one, BaseModel)]
        if not choices or part not in choices[0].model_fields:
            return False
        inside = choices[0].model_fields[part].annotation
    return True


def _content(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{name} names {path}, which cannot be read: {error.strerror}.") from error


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"There is no setting {where}."
    more = error.error_count() - 1
    rest = f" ({more} more settings are wrong.)" if more else ""
    return f"Setting {where}: {first['msg'].removeprefix('Value error, ')}.{rest}"
