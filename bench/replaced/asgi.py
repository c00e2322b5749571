"""What daphne serves."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.replaced.settings")
http = get_asgi_application()  # before what needs the settings

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path  # noqa: E402

from bench.replaced.consumer import ChatConsumer  # noqa: E402

routes = [path("ws/chat/<str:chat>/", ChatConsumer.as_asgi())]
application = ProtocolTypeRouter({"http": http, "websocket": AllowedHostsOriginValidator(URLRouter(routes))})
