"""What the worker does, and what beat asks of it."""

import functools
import smtplib

from celery import Celery
from celery.signals import beat_init

from . import mail, redis_url, settings
from .statistics import summarise
from .store import HEARTBEAT_SECONDS, Store

config = settings.load()
celery = Celery("reports")
# A job of which nothing is heard goes back to the queue after so many seconds; no report takes as
# long.
celery.conf.update(redis_url.broker(config.redis_url, 0, {"visibility_timeout": 60}))
celery.conf.update(
    task_ignore_result=True,
    # A job whose worker dies goes back to the queue.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    beat_schedule={"heartbeat": {"task": "reports.heartbeat", "schedule": HEARTBEAT_SECONDS}},
)


@functools.cache
def store():
    """Opened by each process for itself: connections do not survive a fork."""
    return Store(config)


@celery.task(name="reports.compute", autoretry_for=(ConnectionError,), max_retries=5)
def compute(identifier):
    report = store().find(identifier)
    if report is None:
        return
    result = summarise(report["values"])
    store().finish(identifier, result)
    if report["mail"]:
        notify.delay(identifier)


@celery.task(
    name="reports.notify",
    autoretry_for=(OSError, smtplib.SMTPException),
    retry_backoff=5,
    max_retries=8,
)
def notify(identifier):
    report = store().find(identifier)
    message = mail.compose(config.mail, report["mail"], report, report["result"])
    mail.send(config.mail, message)


@celery.task(name="reports.heartbeat", expires=2 * HEARTBEAT_SECONDS)
def heartbeat():
    store().beat()


@beat_init.connect
def first_heartbeat(**_):
    heartbeat.delay()
