import unittest
from unittest import mock

from reports import web
from reports.settings import Mail, Settings


class FakeStore:
    def __init__(self):
        self.documents = {}
        self.redis = mock.Mock()
        self.reports = mock.Mock()

    def create(self, title, values, mail):
        self.documents["1"] = {"id": "1", "title": title, "state": "pending"}
        return "1"

    def answer(self, identifier):
        return self.documents.get(identifier), False


class WebTest(unittest.TestCase):
    def client(self, settings):
        self.store = FakeStore()
        self.celery = mock.Mock()
        self.compute = mock.Mock()
        return web.create(settings, self.store, self.celery, self.compute).test_client()

    def test_a_report_is_queued_and_answered(self):
        client = self.client(Settings())
        answer = client.post("/reports", json={"title": "Sales", "values": [1, 2]})
        self.assertEqual((answer.status_code, answer.json["id"]), (202, "1"))
        self.compute.assert_called_once_with("1")
        self.assertEqual(client.get("/reports/1").status_code, 202)
        self.store.documents["1"]["state"] = "done"
        self.assertEqual(client.get("/reports/1").status_code, 200)
        self.assertEqual(client.get("/reports/2").status_code, 404)

    def test_bad_requests_are_named(self):
        client = self.client(Settings())
        self.assertEqual(client.post("/reports", json={}).status_code, 400)
        self.assertEqual(client.post("/reports", data="{").status_code, 415)
        with_mail = {"title": "Sales", "values": [1], "mail": "a@example.com"}
        self.assertIn("mail server", client.post("/reports", json=with_mail).json["error"])
        self.compute.assert_not_called()

    def test_mail_is_taken_when_a_server_is_configured(self):
        client = self.client(Settings(mail=Mail(host="mail.example.com")))
        with_mail = {"title": "Sales", "values": [1], "mail": "a@example.com"}
        self.assertEqual(client.post("/reports", json=with_mail).status_code, 202)

    def test_the_status_is_for_the_monitoring_alone(self):
        client = self.client(Settings(monitoring_user_agent="probe"))
        self.assertEqual(client.get("/status").status_code, 404)
        answer = client.get("/status", headers={"User-Agent": "probe"})
        self.assertEqual((answer.status_code, answer.json["status"]), (200, "ok"))
        self.celery.control.ping.return_value = []
        answer = client.get("/status", headers={"User-Agent": "probe"})
        self.assertEqual((answer.status_code, answer.json["parts"]["worker"]), (503, "down"))

    def test_the_status_is_hidden_when_no_agent_is_set(self):
        client = self.client(Settings())
        self.assertEqual(client.get("/status", headers={"User-Agent": ""}).status_code, 404)
