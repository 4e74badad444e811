"""What gunicorn serves."""

from . import web
from .tasks import celery, compute, config, store

app = web.create(config, store(), celery, compute.delay)
