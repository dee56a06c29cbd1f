"""The programs of the how-to pages, as parts of a small project, and the commands and settings that they name."""

import re
import sys

import pytest

from queueber.cli.commands import queueber
from queueber.cli.queue_changes import CHANGEABLE
from tests.pages.page import ROOT, steps
from tests.support.processes import completed

SETTINGS = """
SECRET_KEY = "a test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
"""
URLS = """
from django.urls import path
from shop.views import order

urlpatterns = [path("order/<int:number>/", order)]
"""
CONFTEST = """
import os
import django

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
"""
PROJECTS = {
    "docs/how-to/django.md": {
        "shop/__init__.py": "",
        "shop/settings.py": SETTINGS,
        "shop/urls.py": URLS,
        "conftest.py": CONFTEST,
    },
    "docs/how-to/fastapi.md": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("page", PROJECTS)
def test_the_project_of_the_page_passes_its_own_tests(page, tmp_path):
    programs = {found[1]: text for _, text in steps(page) if (found := re.match(r"# ([\w/]+\.py)\n", text)) is not None}
    assert len(programs) == 3
    for name, text in {**PROJECTS[page], **programs}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=prepend", "-p", "no:cacheprovider", tmp_path]
    done = completed(command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_every_setting_and_command_that_a_page_names_is_there():
    pages = sorted((ROOT / "docs" / "how-to").glob("*.md"))
    text = "\n".join(page.read_text() for page in pages)
    settings = set(re.findall(r"\b([a-z-]+)=[0-9…]", text))
    changeable = {name.replace("_", "-") for name in CHANGEABLE}
    assert {each for each in settings if "-" in each} <= changeable
    assert {"max-attempts", "backoff-base-ms", "ttl-ms", "dead-ttl-ms"} <= settings
    commands = set(re.findall(r"`queueber (?:--queue Q )?([a-z]+)", text))
    assert commands >= {"configure", "kick", "reschedule", "cancel", "get", "dead", "redrive"}
    assert commands <= set(queueber.list_commands(None))
