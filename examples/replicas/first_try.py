"""A replica as one writes it first. It works until it is killed: docs/bring-your-own.md explains what is wrong."""

import json
import os
import threading
from contextlib import suppress

from flask import Flask
from redis import Redis
from redis.exceptions import ResponseError

log, name = os.environ["LAB_NAMESPACE"] + ":log", os.environ["LAB_NODE_ID"]
redis = Redis.from_url(os.environ["LAB_REDIS_URL"], decode_responses=True, protocol=2)
app = Flask(__name__)
lock = threading.Lock()  # a read sees the data and the position of one moment
data = {}
state = {"position": "0-0"}


def follow():
    while True:
        for _, entries in redis.xreadgroup(name, name, {log: ">"}, count=100, block=1000):
            for position, entry in entries:
                redis.xack(log, name, position)
                with lock:
                    apply(position, entry)


def apply(position, entry):
    if entry["op"] == "set":
        data[entry["key"]] = {"value": json.loads(entry["value"]), "version": int(position.split("-")[1])}
    else:
        data.pop(entry["key"], None)
    state["position"] = position


@app.get("/version")
def show_version():
    epoch, version = state["position"].split("-")
    return {"position": state["position"], "version": int(version), "epoch": int(epoch)}


@app.get("/data/<path:key>")
def show(key):
    with lock:
        return {**state, "key": key, **data[key]} if key in data else (dict(state), 404)


with suppress(ResponseError):  # the group exists already
    redis.xgroup_create(log, name, "0", mkstream=True)
threading.Thread(target=follow, daemon=True).start()
app.run("127.0.0.1", int(os.environ["LAB_PORT"]), threaded=True)
