import ssl
import unittest

from reports import redis_url

SENTINELS = "sentinel://app:p%40ss@a.test:1,b.test,[2001:db8::1]:7/?master=main&tls=true&sentinel_password=own%2F"


class RedisUrlTest(unittest.TestCase):
    def test_a_server_is_what_both_libraries_know(self):
        for url in ("redis://:x@a.test:1", "redis://:x@a.test:1/"):
            found = redis_url.broker(url, 0, {"visibility_timeout": 60})
            self.assertEqual(found["broker_url"], "redis://:x@a.test:1/0")
            self.assertEqual(found["broker_transport_options"], {"visibility_timeout": 60})
            self.assertNotIn("broker_use_ssl", found)
            pool = redis_url.client(url, 1).connection_pool
            self.assertEqual((pool.connection_kwargs["db"], pool.connection_kwargs["host"]), (1, "a.test"))

    def test_a_certificate_is_looked_at(self):
        for url in ("rediss://:x@a.test:1", SENTINELS):
            found = redis_url.broker(url, 0, {})
            self.assertEqual(found["broker_use_ssl"], {"ssl_cert_reqs": ssl.CERT_REQUIRED})

    def test_sentinels_are_told_to_both_libraries_in_their_own_ways(self):
        found = redis_url.broker(SENTINELS, 0, {"visibility_timeout": 60})
        self.assertEqual(
            found["broker_url"],
            "sentinel://app:p%40ss@a.test:1/0;sentinel://app:p%40ss@b.test:26379/0;"
            "sentinel://app:p%40ss@[2001:db8::1]:7/0",
        )
        options = found["broker_transport_options"]
        self.assertEqual((options["visibility_timeout"], options["master_name"]), (60, "main"))
        self.assertEqual((options["sentinel_kwargs"]["password"], options["sentinel_kwargs"]["ssl"]), ("own/", True))
        pool = redis_url.client(SENTINELS, 1).connection_pool
        self.assertEqual(pool.service_name, "main")
        known = pool.connection_kwargs
        self.assertEqual((known["username"], known["password"], known["db"]), ("app", "p@ss", 1))
        sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        self.assertEqual([one["port"] for one in sentinels], [1, 26379, 7])
        self.assertEqual({one["password"] for one in sentinels}, {"own/"})


if __name__ == "__main__":
    unittest.main()
