"""The mail that says a report is done."""

import smtplib
import ssl
from email.message import EmailMessage


def compose(settings, address, report, result):
    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = address
    message["Subject"] = f"Your report: {report['title']}"
    lines = [f"{name}: {value}" for name, value in result.items()]
    message.set_content("\n".join([f"Report {report['_id']} is done.", "", *lines]) + "\n")
    return message


def connect(settings):
    if settings.use_ssl:
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=20, context=ssl.create_default_context())
    return smtplib.SMTP(settings.host, settings.port, timeout=20)


def send(settings, message):
    with connect(settings) as server:
        if settings.use_tls and not settings.use_ssl:
            server.starttls(context=ssl.create_default_context())
        if settings.username:
            server.login(settings.username, settings.password)
        server.send_message(message)
