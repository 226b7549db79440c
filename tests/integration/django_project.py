"""A real Django project with its admin, a database and users, as people have it beside a Flask app at /office. ``build`` writes it into a
folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving import environment

_SETTINGS = """
from pathlib import Path

SECRET_KEY = "django"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.messages", "django.contrib.sessions", "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_ROOT = Path(__file__).parent / "collected"
STATIC_URL = "/office/static/"
WHITENOISE_STATIC_PREFIX = "/static/"
USE_TZ = True
"""

_URLS = """
import time

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt


def where(request):
    return HttpResponse(f"{request.path} {request.path_info} {reverse('where')} {request.build_absolute_uri()}")


def fail(request):
    raise ValueError("a Django view has failed")


def slow(request):
    time.sleep(1000)


@csrf_exempt
def upload(request):
    return HttpResponse(str(len(request.body)))


urlpatterns = [
    path("staff/", admin.site.urls),
    path("where/", where, name="where"),
    path("fail/", fail),
    path("slow/", slow),
    path("upload/", upload),
]
"""

_WSGI = """
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = get_wsgi_application()
"""

_SET_UP = """
from django.core.management import call_command

import project.wsgi

call_command("migrate", verbosity=0)
call_command("collectstatic", verbosity=0)
from django.contrib.auth.models import User

User.objects.create_superuser("ada", password="lovelace")
"""


def build(folder: Path) -> None:
    """Write the package ``project`` into *folder*, with an empty database that knows the user ada, whose password is lovelace."""
    package = folder / "project"
    (package / "collected").mkdir(parents=True)
    for name, code in {"__init__": "", "settings": _SETTINGS, "urls": _URLS, "wsgi": _WSGI}.items():
        (package / f"{name}.py").write_text(code)
    subprocess.run([sys.executable, "-c", _SET_UP], cwd=folder, env=environment(), check=True)
