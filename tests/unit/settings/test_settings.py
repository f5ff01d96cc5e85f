"""Settings: where they come from, which one wins, and one sentence for whatever is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from streamgate.domain.errors import ConfigurationError
from streamgate.kernel import Plugin
from streamgate.settings import CoreSettings, load


class AuthLike(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    default_ttl_s: float = Field(30, ge=1)
    admins: tuple[str, ...] = ()
    admin_key_file: Path | None = None


class CacheLike(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    entries: int = 3


PLUGINS: list[Plugin[Any]] = [Plugin("auth", AuthLike, None), Plugin("cache", CacheLike, None)]  # type: ignore[arg-type]


def loaded(environ: dict[str, str] | None = None, **more: Any) -> Any:
    return load(PLUGINS, service="monolith", environ=environ or {}, **more)


def test_the_defaults_need_nothing() -> None:
    settings = loaded()
    assert (settings.host, settings.auth.default_ttl_s, settings.cache.entries, settings.cache.backend) == (
        "127.0.0.1",
        30,
        3,
        "memory",
    )


def test_flags_win_over_environment_over_files(tmp_path: Path) -> None:
    config = tmp_path / "config"
    (config / "services").mkdir(parents=True)
    (config / "env").mkdir()
    (config / "base.yaml").write_text("port: 1\nhost: a\nlog_level: debug\nauth:\n  default_ttl_s: 2\n  admins: [x]\n")
    (config / "services" / "monolith.yaml").write_text("host: b\n")
    (config / "env" / "development.yaml").write_text("auth:\n  default_ttl_s: 3\n")
    given = tmp_path / "given.yaml"
    given.write_text("auth:\n  default_ttl_s: 4\n")
    environ = {"STREAMGATE_CONFIG_DIR": str(config), "STREAMGATE_AUTH__ADMINS": '["y"]', "STREAMGATE_PORT": "2"}
    settings = loaded(environ, config_file=given, flags={"port": 3})
    assert (settings.port, settings.host, settings.log_level) == (3, "b", "debug")
    assert (settings.auth.default_ttl_s, settings.auth.admins) == (4, ("y",))


def test_aliases_and_secret_files(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("sqlite+aiosqlite:///there\n")
    assert loaded({"DATABASE_URL": "sqlite+aiosqlite:///x"}).database.url.get_secret_value() == "sqlite+aiosqlite:///x"
    settings = loaded({"STREAMGATE_DATABASE__URL_FILE": str(secret)})
    assert settings.database.url.get_secret_value() == "sqlite+aiosqlite:///there"
    assert loaded({"STREAMGATE_AUTH__ADMIN_KEY_FILE": "/k"}).auth.admin_key_file == Path("/k")
    tls = loaded({f"STREAMGATE_GRPC_TLS__{name}_FILE": f"/{name}" for name in ("CERT", "KEY", "CA")}).grpc_tls
    assert (tls.cert_file, tls.key_file, tls.ca_file) == (Path("/CERT"), Path("/KEY"), Path("/CA"))
    s3 = {"ENDPOINT": "https://s3.example", "BUCKET": "b", "ACCESS_KEY": "a", "SECRET_KEY_FILE": str(secret)}
    found = loaded({f"STREAMGATE_STORAGE__S3__{name}": value for name, value in s3.items()}).storage.s3
    assert found.secret_key.get_secret_value() == "sqlite+aiosqlite:///there"


def test_keys_and_places_of_services_may_stand_in_the_environment_and_beside_a_file(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("services:\n  api-gateway: {public_key_file: /old}\n  metadata: {public_key_file: /m.pem}\n")
    environ = {
        "STREAMGATE_SERVICES__API_GATEWAY__PUBLIC_KEY_FILE": "/g.pem",
        "STREAMGATE_SERVICES__AUTH__PUBLIC_KEY_FILE": "/a.pem",
        "STREAMGATE_DISCOVERY__SERVICES__API_GATEWAY": '["127.0.0.1:9090"]',
    }
    settings = loaded(environ)
    assert {name: str(one.public_key_file) for name, one in settings.services.items()} == {
        "api-gateway": "/g.pem",
        "auth": "/a.pem",
    }
    assert settings.discovery.services == {"api-gateway": ("127.0.0.1:9090",)}
    beside = loaded({k: v for k, v in environ.items() if "AUTH" in k}, config_file=file)
    assert {name: str(one.public_key_file) for name, one in beside.services.items()} == {
        "api-gateway": "/old",
        "auth": "/a.pem",
        "metadata": "/m.pem",
    }
    over = loaded(environ, config_file=file)
    assert str(over.services["api-gateway"].public_key_file) == "/g.pem"


def test_sections_of_services_that_run_elsewhere_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("upload:\n  max_size: 1\nauth:\n  default_ttl_s: 9\n")
    environ = {"STREAMGATE_UPLOAD__MAX_SIZE": "1"}
    settings = loaded(environ, config_file=file, known_sections=frozenset({"auth", "cache", "upload"}))
    assert settings.auth.default_ttl_s == 9


def test_secrets_do_not_show() -> None:
    settings = loaded({"STREAMGATE_CHAINS": '{"eip155:1": {"endpoints": ["https://rpc.example/KEY123"]}}'})
    assert "KEY123" not in repr(settings)
    assert settings.chains["eip155:1"].endpoints[0].get_secret_value().endswith("KEY123")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"STREAMGATE_AUTH__TTL": "5"}, r"There is no setting auth\.ttl\."),
        ({"STREAMGATE_AUHT__TTL": "5"}, "STREAMGATE_AUHT__TTL names no setting"),
        ({"STREAMGATE_AUTH__DEFAULT_TTL_S": "0"}, r"Setting auth\.default_ttl_s: Input should be greater"),
        ({"STREAMGATE_AUTH__ADMINS": "x"}, "no valid JSON"),
        ({"STREAMGATE_CHAINS": '{"1": {"endpoints": ["http://x"]}}'}, r"Setting chains\.1"),
        ({"STREAMGATE_CHAINS": '{"eip155:1": {"endpoints": []}}'}, "at least one endpoint"),
        ({"STREAMGATE_CHAINS": '{"eip155:1": {"endpoints": ["ws://x"]}}'}, "http"),
        ({"STREAMGATE_PUBLIC_URL": "https://a/b"}, "Setting public_url"),
        ({"STREAMGATE_PUBLIC_URL": "films.example"}, "Setting public_url"),
        ({"STREAMGATE_DATABASE__URL_FILE": "/nowhere"}, "cannot be read"),
        ({"STREAMGATE_CONFIG_DIR": "/nowhere"}, "no folder"),
        ({"STREAMGATE_PORT": "99999"}, "Setting port"),
    ],
)
def test_whatever_is_wrong_is_one_sentence(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        loaded(environ)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["auth: [", "- a\n", "auth:\n  nothing: 1\n", "nothing: 1\n"])
def test_a_wrong_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        loaded(config_file=file)
    assert "\n" not in str(caught.value)


def test_a_plugin_cannot_take_a_setting_of_the_core() -> None:
    with pytest.raises(ConfigurationError, match="cannot have the settings section 'port'"):
        load([Plugin("port", AuthLike, None)], service="monolith", environ={})  # type: ignore[arg-type]


def test_every_setting_is_described() -> None:
    undescribed = [
        name
        for name, field in CoreSettings.model_fields.items()
        if not field.description and not hasattr(field.annotation, "model_fields")
    ]
    assert undescribed == []
