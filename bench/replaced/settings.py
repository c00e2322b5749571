"""Django's settings; what they name comes from the environment."""

import os

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["daphne", "channels"]
ROOT_URLCONF = "bench.replaced.urls"
ASGI_APPLICATION = "bench.replaced.asgi.application"
USE_TZ = True
REDIS_URL = os.environ["REDIS_URL"]
# The layer waits 5 s for a message; redis-py 8 gives up after as long by itself, and the websocket would end with it.
HOST = {"address": REDIS_URL, "socket_timeout": None}
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [HOST]}}
}
