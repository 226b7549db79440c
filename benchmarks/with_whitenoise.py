"""The app with WhiteNoise around it, as its documentation has it."""

from __future__ import annotations

from apps import app
from files import FOLDER
from whitenoise import WhiteNoise

application = WhiteNoise(app, root=str(FOLDER), prefix="static")
