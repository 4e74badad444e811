"""Asks a web tier without a pause, a new connection each time, and counts what goes wrong.

load.py HOST SECONDS: HOST has an address for each box. A twentieth of the requests hands a
job over; all of them must be done in the end, also those of a worker whose machine died, which
go to another one after a minute. Prints one JSON object.
"""

import http.client
import json
import random
import socket
import sys
import threading
import time

HOST, SECONDS = sys.argv[1], float(sys.argv[2])
REPORT = json.dumps({"title": "Load", "values": [1, 2, 3]})
end = time.time() + SECONDS
lock = threading.Lock()
boxes, jobs, failures = set(), [], []


def ask(method, path, body=None):
    """Status code and answer of one box, whichever."""
    address = random.choice(socket.getaddrinfo(HOST, 80, socket.AF_INET, socket.SOCK_STREAM))[4][0]
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        boxes.add(address)
        return answer.status, answer.read()
    except OSError as error:
        raise OSError(f"{address}: {error!r}") from error
    finally:
        connection.close()


def hand_over():
    status, body = ask("POST", "/reports", REPORT)
    if status != 202:
        raise OSError(f"POST answered {status}: {body[:200]!r}")
    jobs.append(json.loads(body)["id"])


def load():
    count = 0
    while time.time() < end:
        try:
            if random.random() < 0.05:
                hand_over()
            else:
                job = random.choice(jobs)
                status, body = ask("GET", f"/reports/{job}")
                # 202 is one that is not done yet.
                if status not in (200, 202):
                    raise OSError(f"GET {job} answered {status}: {body[:200]!r}")
        except (OSError, http.client.HTTPException) as error:
            with lock:
                failures.append(f"{time.strftime('%T')} {error!r}")
        count += 1
        time.sleep(0.01)
    with lock:
        requests.append(count)


requests = []
hand_over()
threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
open_jobs = set(jobs)
until = time.time() + 180
while open_jobs and time.time() < until:
    open_jobs = {job for job in open_jobs if ask("GET", f"/reports/{job}")[0] != 200}
    time.sleep(0.5)
print(
    json.dumps(
        {
            "requests": sum(requests),
            "boxes": len(boxes),
            "failures": failures[:100],
            "jobs": len(jobs),
            "lost": sorted(open_jobs),
        }
    )
)
