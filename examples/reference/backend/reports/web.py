"""The HTTP interface."""

import hmac

from flask import Flask, jsonify, request
from werkzeug.exceptions import HTTPException

from . import __version__, status
from .requests import Invalid, parse

PAGE = f"""<!doctype html>
<html lang="en">
<title>Reports</title>
<h1>Reports</h1>
<p>POST /reports with a title and values, then GET /reports/ID. Version {__version__}.</p>
</html>
"""


def create(config, store, celery, compute):
    app = Flask("reports")
    app.config["MAX_CONTENT_LENGTH"] = 8 * 1024 * 1024

    @app.get("/")
    def index():
        return PAGE

    @app.post("/reports")
    def create_report():
        try:
            title, values, mail = parse(request.get_json())
        except Invalid as error:
            return jsonify(error=str(error)), 400
        if mail and not config.mail.host:
            return jsonify(error="mail: no mail server is configured"), 400
        identifier = store.create(title, values, mail)
        compute(identifier)
        return jsonify(id=identifier, state="pending"), 202, {"Location": f"/reports/{identifier}"}

    @app.get("/reports/<identifier>")
    def read_report(identifier):
        document, cached = store.answer(identifier)
        if document is None:
            return jsonify(error="no such report"), 404
        code = 200 if document["state"] == "done" else 202
        return jsonify(document), code, {"X-Cache": "hit" if cached else "miss"}

    @app.get("/status")
    def read_status():
        expected = config.monitoring_user_agent
        given = request.headers.get("User-Agent", "")
        if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
            return jsonify(error="Not Found"), 404
        document = status.report(store, celery)
        return jsonify(document), 200 if document["status"] == "ok" else 503

    @app.errorhandler(HTTPException)
    def failed(error):
        return jsonify(error=error.name), error.code

    return app
