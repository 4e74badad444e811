"""Reports in MongoDB, finished ones cached in Redis."""

import datetime
import json
import uuid

from pymongo import MongoClient

from . import redis_url

HEARTBEAT = "heartbeat:beat"
HEARTBEAT_SECONDS = 10


class Store:
    def __init__(self, settings):
        self.cache_seconds = settings.cache_seconds
        self.client = MongoClient(settings.mongodb_url, serverSelectionTimeoutMS=3000)
        self.reports = self.client.get_default_database().reports
        # Database 0 is the queue's, 1 the cache's.
        self.redis = redis_url.client(settings.redis_url, 1)

    def migrate(self):
        self.reports.create_index("created")

    def is_migrated(self):
        return any(index["key"] == [("created", 1)] for index in self.reports.index_information().values())

    def create(self, title, values, mail):
        identifier = uuid.uuid4().hex
        self.reports.insert_one(
            {
                "_id": identifier,
                "title": title,
                "values": values,
                "mail": mail,
                "state": "pending",
                "created": datetime.datetime.now(datetime.timezone.utc),
            }
        )
        return identifier

    def find(self, identifier):
        return self.reports.find_one({"_id": identifier})

    def finish(self, identifier, result):
        self.reports.update_one({"_id": identifier}, {"$set": {"state": "done", "result": result}})

    def answer(self, identifier):
        """The document for the client, and whether it came from the cache."""
        cached = self.redis.get(f"report:{identifier}")
        if cached:
            return json.loads(cached), True
        report = self.find(identifier)
        if report is None:
            return None, False
        document = {"id": identifier, "title": report["title"], "state": report["state"]}
        if report["state"] == "done":
            document["result"] = report["result"]
            if self.cache_seconds > 0:
                self.redis.set(f"report:{identifier}", json.dumps(document), ex=self.cache_seconds)
        return document, False

    def beat(self):
        self.redis.set(HEARTBEAT, "1", ex=4 * HEARTBEAT_SECONDS)
