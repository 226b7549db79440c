"""Extensions, made once and attached to every app that the factory makes."""

from flask_prodserve import ProdServe

prodserve = ProdServe(log_level="info")
