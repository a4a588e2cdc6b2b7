#!/usr/bin/env python3
"""Instructions outside of the kernel for one request, which other programs on the machine do not change.

    benches/instructions.py DIORAMA [BENCH] [--rows N] [--requests N] [--only WORD] [--warm] [--keep FOLDER]
    benches/instructions.py DIORAMA --access [--rows N] [--requests N]
    benches/instructions.py DIORAMA --related [--rows N] [--requests N]

DIORAMA is the release binary; BENCH is that of `cargo bench --bench gateway --no-run`, whose bare handlers give the same bytes.
With --access, the same requests are sent to a server without authentication, with a key, with a JWT, and with a key and a rule on an
indexed column. With --related, pages of 50 rows are asked with and without related rows.
Needs valgrind. Texts of queries are new but for few; with --warm each was asked before. --keep leaves callgrind's files.
`rep movsb` counts an instruction for each byte, so long copies look worse than they are.
"""
import argparse
import base64
import glob
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("diorama")
parser.add_argument("bench", nargs="?")
parser.add_argument("--rows", type=int, default=20_000)
parser.add_argument("--requests", type=int, default=200)
parser.add_argument("--only", default="")
parser.add_argument("--warm", action="store_true")
parser.add_argument("--keep")
parser.add_argument("--access", action="store_true")
parser.add_argument("--related", action="store_true")
options = parser.parse_args()
ROWS = options.rows


def scattered(number, most):
    return (number * 7919 + 31_337) % max(most, 1)


def row(at):
    """As benches/products has it."""
    kind, what = ["round", "flat", "braided", "sweet"][at % 4], ["bun", "loaf", "tart", "muffin"][at // 4 % 4]
    return {
        "id": f"p{at:08}",
        "name": f"Product number {at} of the bakery",
        "category_id": at % 50,
        "price": at * 7919 % 10_000,
        "stock": at % 300,
        "description": f"A {kind} {what} of the {at // 16}th batch, baked in the morning, "
        f"kept on the {at % 97}th shelf, sold by weight",
    }


def span(n):
    low = scattered(n, 9_000)
    return f"price=gte.{low}&price=lt.{low + 500}"


# Name, method, whether the client has the version already, path after /products.
CASES = [
    ("one record", "GET", False, lambda n: f"/p{scattered(n, ROWS):08}"),
    ("page of 50", "GET", False, lambda n: f"?limit=50&offset={scattered(n, ROWS - 50)}"),
    ("first page of 50", "GET", False, lambda n: "?limit=50"),
    ("exact count (HEAD)", "HEAD", False, lambda n: "?limit=1"),
    ("exact count (limit=0)", "GET", False, lambda n: "?limit=0"),
    ("304 of a page", "GET", True, lambda n: "?limit=50&offset=5000"),
    ("304 of a record", "GET", True, lambda n: f"/p{ROWS // 2:08}"),
    (
        "filtered and sorted",
        "GET",
        False,
        lambda n: f"?category_id={n % 50}&order=price.desc&limit=50&offset={scattered(n, ROWS // 50 - 50)}",
    ),
    ("another order", "GET", False, lambda n: f"?order=price&limit=50&offset={scattered(n, ROWS - 50)}"),
    ("equality", "GET", False, lambda n: f"?category_id={n % 50}&limit=50"),
    ("range", "GET", False, lambda n: f"?{span(n)}&order=price&limit=50"),
    (
        "in, sorted",
        "GET",
        False,
        lambda n: f"?category_id=in.({n % 50},{(n + 17) % 50},{(n + 31) % 50})&order=price&limit=50",
    ),
    ("count of a filter", "GET", False, lambda n: f"?category_id={n % 50}&price=gte.{scattered(n, 9_000)}&limit=0"),
    ("two words", "GET", False, lambda n: f"?q=shelf+{scattered(n, ROWS // 16)}th&limit=50"),
    ("404 of a record", "GET", False, lambda n: "/nowhere"),
]


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, headers=""):
        """The status, the headers and the body of the answer."""
        request = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n{headers}\r\n"
        self.socket.sendall(request.encode())
        read = b""
        while b"\r\n\r\n" not in read:
            read += self.socket.recv(1 << 20)
        head, body = read.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        status, given = int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:])
        length = 0 if method == "HEAD" or status == 304 else int(given.get("content-length", 0))
        while len(body) < length:
            body += self.socket.recv(1 << 20)
        return status, given, body


class Server:
    """A server under callgrind, which counts only when it is told to."""

    def __init__(self, name, command, folder):
        self.out = f"{folder}/{name}"
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self.out}"]
        self.process = subprocess.Popen(
            tool + command,
            cwd=folder,
            env=dict(os.environ, TOKIO_WORKER_THREADS="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in self.process.stdout:
            if found := re.search(r"listening on http://127.0.0.1:(\d+)", line):
                self.port = int(found.group(1))
                return
        raise SystemExit(f"{command[0]} ended early")

    def control(self, *words):
        command = ["callgrind_control", *words, str(self.process.pid)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def instructions(self, name, asks):
        connection = Connection(self.port)
        for ask in asks if options.warm else asks[:20]:
            connection.ask(*ask)
        self.control("--instr=on")
        # What callgrind does first is not counted.
        for ask in asks[:30]:
            connection.ask(*ask)
        self.control("--zero")
        for ask in asks:
            connection.ask(*ask)
        self.control("--dump")
        self.control("--instr=off")
        newest = max(glob.glob(f"{self.out}.*[0-9]"), key=os.path.getmtime)
        with open(newest, encoding="utf-8") as file:
            total = next(int(line.split()[1]) for line in file if line.startswith(("summary:", "totals:")))
        if options.keep:
            os.makedirs(options.keep, exist_ok=True)
            shutil.copy(newest, f"{options.keep}/{os.path.basename(self.out)}.{name.replace(' ', '-')}")
        for file in glob.glob(f"{self.out}.*[0-9]"):
            os.remove(file)
        return total / len(asks) / 1_000


def wait(what):
    for _ in range(600):
        if what():
            return
        time.sleep(0.2)
    raise SystemExit("it took too long")


def main(folder):
    cases = [case for case in CASES if options.only in case[0]]
    with open(f"{folder}/products.ndjson", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row(at), separators=(",", ":")) + "\n" for at in range(ROWS))
    source, cache = f"products={folder}/products.ndjson", f"{folder}/cache.redb"
    command = [os.path.abspath(options.diorama), "serve", source, "--listen", "127.0.0.1:0", "--cache", cache]
    ours = Server("ours", command, folder)
    wait(lambda: Connection(ours.port).ask("GET", "/readyz")[0] == 200)

    measured, prebuilt = [], []
    for number, (name, method, known, path) in enumerate(cases):
        first = f"/products{path(0)}"
        if "order=" in first or "category_id=" in first or "q=" in first:
            explain = lambda: json.loads(Connection(ours.port).ask("GET", f"{first}&explain=true")[2])
            wait(lambda: not explain()["plan"]["wanted"])
        etag = Connection(ours.port).ask(method, first)[1].get("etag")
        headers = f"if-none-match: {etag}\r\n" if known else ""
        asks = [(method, f"/products{path(n)}", headers) for n in range(options.requests)]
        status, given, body = Connection(ours.port).ask(*asks[0])
        # The bare server's path is as long.
        other = f"/bare{number:04}"
        prebuilt.append(
            {
                "route": other + ("/{id}" if path(0).startswith("/") else ""),
                "method": "GET",
                "status": status,
                "headers": [pair for pair in given.items() if pair[0] not in ("date", "content-length")],
                "length": len(body) if method == "GET" else int(given["content-length"]),
            }
        )
        bare = [(method, other + ask[1].removeprefix("/products"), headers) for ask in asks]
        measured.append((name, ours.instructions(name, asks), bare))
    ours.process.kill()

    if options.bench:
        with open(f"{folder}/prebuilt.json", "w", encoding="utf-8") as file:
            json.dump(prebuilt, file)
        bare = Server("bare", [os.path.abspath(options.bench), "--serve-bare", f"{folder}/prebuilt.json"], folder)
    for name, own, asks in measured:
        line = f"| {name} | {own:.1f}k |"
        if options.bench:
            theirs = bare.instructions(name, asks)
            line = f"| {name} | {theirs:.1f}k | {own:.1f}k | {theirs / own:.2f} |"
        print(line, flush=True)
    if options.bench:
        bare.process.kill()


TOKEN = "the token of the measurement"
SECRET = "a secret of at least thirty-two bytes"
CATEGORY = 7
# Name, configuration, token.
ACCESS = [
    ("no authentication", "", None),
    ("key", '[key.a]\ntoken = "env:TOKEN"\nrole = "admin"\n', TOKEN),
    (
        "JWT",
        '[jwt.a]\nissuer = "https://idp.example"\naudience = "diorama"\nalgorithms = ["HS256"]\nsecret = "env:SECRET"\n',
        "jwt",
    ),
    (
        "key and rule",
        f'[key.a]\ntoken = "env:TOKEN"\nrole = "member"\nclaims = {{ category = {CATEGORY} }}\n'
        '[[allow]]\nrole = "member"\ndio = "products"\ncan = ["read"]\nwhere = "category_id=eq.{claims.category}"\n',
        TOKEN,
    ),
]
# Rows of one category, so that every server answers with the same bytes.
ACCESS_CASES = [
    ("one record", lambda n: f"/p{scattered(n, ROWS // 50) * 50 + CATEGORY:08}"),
    ("equality", lambda n: f"?category_id=eq.{CATEGORY}&limit=50&offset={scattered(n, ROWS // 50 - 50)}"),
    ("304 of a record", lambda n: f"/p{ROWS // 100 * 50 + CATEGORY:08}"),
]


def jwt():
    """A token of the issuer of the configuration."""
    part = lambda value: base64.urlsafe_b64encode(value).rstrip(b"=").decode()
    claims = {"iss": "https://idp.example", "aud": "diorama", "sub": "u1", "role": "member", "exp": int(time.time()) + 3_600}
    message = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims).encode())
    return message + "." + part(hmac.new(SECRET.encode(), message.encode(), "sha256").digest())


def access(folder):
    with open(f"{folder}/products.ndjson", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row(at), separators=(",", ":")) + "\n" for at in range(ROWS))
    os.environ.update(TOKEN=TOKEN, SECRET=SECRET)
    results = {name: [] for name, _ in ACCESS_CASES}
    for number, (name, configuration, token) in enumerate(ACCESS):
        own = f"{folder}/{number}"
        os.mkdir(own)
        with open(f"{own}/diorama.toml", "w", encoding="utf-8") as file:
            file.write(f'[server]\nlisten = "127.0.0.1:0"\n[dio.products]\nsource = {{ json = "../products.ndjson" }}\n')
            file.write(f'id = "id"\nindexes = ["category_id"]\n{configuration}')
        server = Server("ours", [os.path.abspath(options.diorama), "serve"], own)
        token = jwt() if token == "jwt" else token
        headers = f"authorization: Bearer {token}\r\n" if token else ""
        wait(lambda: Connection(server.port).ask("GET", "/readyz", headers)[0] == 200)
        for case, path in ACCESS_CASES:
            etag = Connection(server.port).ask("GET", f"/products{path(0)}", headers)[1]["etag"]
            known = f"if-none-match: {etag}\r\n" if case.startswith("304") else ""
            asks = [("GET", f"/products{path(n)}", headers + known) for n in range(options.requests)]
            status = Connection(server.port).ask(*asks[0])[0]
            assert status == (304 if known else 200), (name, case, status)
            results[case].append(server.instructions(case, asks))
        server.process.kill()
    print("| request | " + " | ".join(name for name, _, _ in ACCESS) + " |")
    print("|---" * (len(ACCESS) + 1) + "|")
    for case, own in results.items():
        cells = [f"{count:.1f}k ({count / own[0]:.3f})" for count in own]
        print(f"| {case} | " + " | ".join(cells) + " |", flush=True)


# Name, parameters beside those of the page.
RELATED = [
    ("whole rows", ""),
    ("with the category", "&select=*,category(*)"),
    ("with the name of the category", "&select=*,category(name)"),
    ("with the number of notes", "&select=*,notes(count)"),
    ("with two notes", "&select=*,notes(id,order=id,limit=2)"),
    ("of a category by its name", "&category.name=eq.category+7"),
]


def related(folder):
    with open(f"{folder}/products.ndjson", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row(at), separators=(",", ":")) + "\n" for at in range(ROWS))
    with open(f"{folder}/categories.ndjson", "w", encoding="utf-8") as file:
        file.writelines(f'{{"id":{at},"name":"category {at}","shelf":{at % 7}}}\n' for at in range(50))
    with open(f"{folder}/notes.ndjson", "w", encoding="utf-8") as file:
        file.writelines(f'{{"id":"n{at}","product_id":"p{at % ROWS:08}","text":"a note"}}\n' for at in range(2 * ROWS))
    with open(f"{folder}/diorama.toml", "w", encoding="utf-8") as file:
        file.write('[server]\nlisten = "127.0.0.1:0"\n')
        for name in ["products", "categories", "notes"]:
            file.write(f'[dio.{name}]\nsource = {{ json = "{name}.ndjson" }}\nid = "id"\n')
            file.write({"products": 'indexes = ["category_id"]\n', "notes": 'indexes = ["product_id"]\n'}.get(name, ""))
        file.write('[dio.products.relations]\ncategory = { dio = "categories", on = "category_id" }\n')
        file.write('notes = { dio = "notes", on = "product_id", many = true }\n')
    server = Server("ours", [os.path.abspath(options.diorama), "serve"], folder)
    wait(lambda: Connection(server.port).ask("GET", "/readyz")[0] == 200)
    print("| page of 50 | instructions | to whole rows |\n|---|---|---|")
    first = None
    for name, parameters in RELATED:
        asks = [("GET", f"/products?limit=50&offset={scattered(n, ROWS // 50 - 50)}{parameters}", "") for n in range(options.requests)]
        status, _, body = Connection(server.port).ask(*asks[0])
        assert status == 200, (name, status, body)
        count = server.instructions(name, asks)
        first = first or count
        print(f"| {name} | {count:.1f}k | {count / first:.2f} |", flush=True)
    server.process.kill()


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
    (access if options.access else related if options.related else main)(place)
