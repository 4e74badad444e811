"""What the environment says, read once and passed on."""

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mail:
    host: str = ""
    port: int = 25
    username: str = ""
    password: str = field(default="", repr=False)
    use_tls: bool = False
    use_ssl: bool = False
    sender: str = "backend@localhost"


@dataclass(frozen=True)
class Settings:
    mongodb_url: str = field(default="mongodb://127.0.0.1:27017/backend", repr=False)
    redis_url: str = field(default="redis://127.0.0.1:6379", repr=False)
    cache_seconds: int = 300
    monitoring_user_agent: str = ""
    mail: Mail = Mail()


def load(environment=os.environ):
    get = environment.get
    return Settings(
        mongodb_url=get("MONGODB_URL", Settings.mongodb_url),
        redis_url=get("REDIS_URL", Settings.redis_url),
        cache_seconds=int(get("CACHE_SECONDS", Settings.cache_seconds)),
        monitoring_user_agent=get("MONITORING_USER_AGENT", ""),
        mail=Mail(
            host=get("MAIL_SERVER", ""),
            port=int(get("MAIL_PORT", Mail.port)),
            username=get("MAIL_USERNAME", ""),
            password=get("MAIL_PASSWORD", ""),
            use_tls=get("MAIL_USE_TLS", "false").lower() == "true",
            use_ssl=get("MAIL_USE_SSL", "false").lower() == "true",
            sender=get("MAIL_DEFAULT_SENDER", Mail.sender),
        ),
    )
