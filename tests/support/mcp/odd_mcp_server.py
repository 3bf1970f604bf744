"""An MCP server over standard input and output that misbehaves in a chosen way. A program, without the SDK.

    odd_mcp_server.py BEHAVIOUR [FILE]

`FILE`: gets a line for each start and for each cancelled call.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

BEHAVIOUR = sys.argv[1]
FILE = sys.argv[2] if len(sys.argv) > 2 else ""
OBJECT = {"type": "object", "properties": {}}


def note(line):
    if FILE:
        with Path(FILE).open("a") as file:
            file.write(line + "\n")


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def tool(name, **more):
    return {"name": name, "inputSchema": OBJECT, **more}


def deep(levels):
    schema = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


ODD_TOOLS = [
    tool("good", description="d" * 100_000, annotations={"readOnlyHint": True, "title": 7}, icons="none"),
    tool(""),
    tool("n" * 1_000_000),
    tool("con\u0000trol\n"),
    tool("good"),
    tool(7),
    "a string",
    {"name": "no_schema"},
    tool("list_schema") | {"inputSchema": []},
    tool("string_schema") | {"inputSchema": {"type": "string"}},
    tool("invalid_schema") | {"inputSchema": {"type": "object", "properties": {"a": {"type": 7}}}},
    tool("huge_schema") | {"inputSchema": {"type": "object", "description": "s" * 100_000}},
    tool("deep_schema") | {"inputSchema": deep(60)},
    tool("remote") | {"inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/a"}}}},
    tool("also_good") | {"inputSchema": {"properties": {"a": True}}},
    tool("odd_output", outputSchema="nothing"),
]
lists = 0


def list_tools(params):
    global lists
    lists += 1
    if BEHAVIOUR == "hang in list":
        time.sleep(600)
    if BEHAVIOUR == "late list":
        note("list")
        while not Path(f"{FILE}.go").exists():
            time.sleep(0.01)
    if BEHAVIOUR == "endless pages":
        return {"tools": [tool(f"t{lists}")], "nextCursor": f"c{lists}"}
    if BEHAVIOUR == "same cursor":
        return {"tools": [tool(f"t{lists}")], "nextCursor": "again"}
    if BEHAVIOUR == "many tools":
        return {"tools": [tool(f"t{i}") for i in range(10_000)]}
    if BEHAVIOUR == "odd tools":
        return {"tools": ODD_TOOLS}
    if BEHAVIOUR == "no list":
        return {"tools": "none"}
    if BEHAVIOUR == "changing":
        return {"tools": [tool(f"v{lists}"), tool("change")]}
    if BEHAVIOUR == "typed":
        number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        slow = {"type": "object", "properties": {"s": {"type": "string", "pattern": "^(a+)+$"}}}
        web = {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 9} for i in range(30)},
        }
        return {
            "tools": [
                tool("right", outputSchema=number),
                tool("wrong", outputSchema=number),
                tool("slow", outputSchema=slow),
                tool("web", outputSchema={"type": "object", **web}),
                tool("remote", outputSchema={"type": "object", "$ref": "http://127.0.0.1:1/a"}),
            ]
        }
    if BEHAVIOUR == "asks":
        return {"tools": [tool("sampling/createMessage"), tool("elicitation/create"), tool("roots/list")]}
    return {"tools": [tool("echo"), tool("crash"), tool("hang"), tool("work")]}


def text(value, **more):
    return {"content": [{"type": "text", "text": value}], **more}


def ask(method, params):
    """The client's answer, and its declared capabilities."""
    say({"id": "asked", "method": method, "params": params})
    for line in sys.stdin:
        reply = json.loads(line)
        if reply.get("id") == "asked":
            return {"reply": reply.get("result"), "error": reply.get("error"), "client": client}
    return None


client = {}


def call(id, params):
    name = params["name"]
    if name == "crash":
        sys.stderr.write("I was told to crash\n")
        sys.stderr.flush()
        os._exit(3)
    if name == "hang":
        time.sleep(600)
    if name == "work":
        return None  # never answered, but others are meanwhile
    if name == "change":
        say({"method": "notifications/tools/list_changed"})
    if name == "right":
        return text("7", structuredContent={"n": 7})
    if name in ("wrong", "web", "remote"):
        return text("seven", structuredContent={"n": "seven"})
    if name == "slow":
        return text("slow", structuredContent={"s": "a" * 60 + "b"})
    if BEHAVIOUR == "endless line":
        while True:
            sys.stdout.write("x" * 65536)
    if BEHAVIOUR == "huge result":
        sys.stdout.write(f'{{"jsonrpc": "2.0", "id": {id}, "result": {{"content": [{{"type": "text", "text": "')
        for _ in range(300):
            sys.stdout.write("y" * 2**20)
        sys.stdout.write('"}]}}\n')
        return text("never read")
    if BEHAVIOUR == "many values":
        sys.stdout.write(f'{{"jsonrpc": "2.0", "id": {id}, "result": {{"content": [], "_meta": {{"a": [')
        sys.stdout.write("[]," * 1_000_000 + "[]]}}}\n")
        return None
    if BEHAVIOUR == "notifications":
        line = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        )
        while True:
            sys.stdout.write((line + "\n") * 100)
    if BEHAVIOUR == "pings":  # whose answers are not read
        for i in range(100_000):
            say({"id": i, "method": "ping", "params": {"_meta": {"padding": "p" * 500_000}}})
    if BEHAVIOUR == "cancels":
        for i in range(50):
            say({"id": f"c{i}", "method": "elicitation/create", "params": {"message": "?", "requestedSchema": OBJECT}})
            say({"method": "notifications/cancelled", "params": {"requestId": f"c{i}"}})
    if BEHAVIOUR == "progress":
        token = params["_meta"]["progressToken"]
        for i in range(200):
            say(
                {
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": i, "message": "m" * 5000},
                }
            )
        return text("done")
    if BEHAVIOUR == "junk":
        for line in ("hello", "[1, 2", "{}", '{"jsonrpc": "2.0"}', "\x00\x01", "null", "[" * 5000):
            sys.stdout.write(line + "\n")
        return text("after the junk")
    if BEHAVIOUR == "stderr":
        for _ in range(1000):
            sys.stderr.write("e" * 10_000 + "\n")
        sys.stderr.flush()
        return text("said much")
    if BEHAVIOUR == "bad result":
        return {"content": "not a list"}
    if BEHAVIOUR == "environment":
        return text(json.dumps(dict(os.environ)))
    if BEHAVIOUR == "asks":
        return text(json.dumps(ask(name, params["arguments"])))
    if BEHAVIOUR == "refuses":
        say({"id": id, "error": {"code": -32602, "message": "no such tool"}})
        return None
    return text(json.dumps(params.get("arguments", {})))


def answer(message):
    method, id, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method == "notifications/cancelled":
        note(f"cancelled {params.get('requestId')}")
    if id is None or method is None:
        return
    if method == "initialize":
        client.update(params["capabilities"])
        if BEHAVIOUR == "hang in initialize":
            time.sleep(600)
        say(
            {
                "id": id,
                "result": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "odd", "version": "1"},
                },
            }
        )
    elif method == "tools/list":
        say({"id": id, "result": list_tools(params)})
    elif method == "tools/call":
        result = call(id, params)
        if result is not None:
            say({"id": id, "result": result})
    elif method == "ping":
        say({"id": id, "result": {}})
    else:
        say({"id": id, "error": {"code": -32601, "message": "Method not found"}})


note(f"start {os.getpid()}")
if BEHAVIOUR == "children":
    child = subprocess.Popen(["sleep", "600"])
    note(f"child {child.pid}")
if BEHAVIOUR == "stubborn":
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if BEHAVIOUR == "crash at start":
    sys.stderr.write("no configuration\n")
    sys.exit(2)
for line in sys.stdin:
    answer(json.loads(line))
if BEHAVIOUR == "stubborn":
    time.sleep(600)
