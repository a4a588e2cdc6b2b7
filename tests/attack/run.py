"""Attacks on a running server, one after another, each on a fresh one: what they cost in memory, and steady readers in time."""

import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import probes
from attackers import ATTACKS, ITEMS, GROUPS, ORDERS, SECRET, attack

SECONDS = float(os.environ.get("DIORAMA_ATTACK_SECONDS", "12"))
# What the server's own budgets may add to 1.5 times its memory at rest.
BUDGET_MIB = float(os.environ.get("DIORAMA_ATTACK_BUDGET_MIB", "256"))
# Beyond these the run has failed; an attack that reaches the second is stopped.
MOST_MIB = float(os.environ.get("DIORAMA_ATTACK_MOST_MIB", "1024"))
STOP_MIB = float(os.environ.get("DIORAMA_ATTACK_STOP_MIB", "6144"))
P99_MS = 50
TOKEN = "the-token-of-the-attack"


def config(auth):
    hook = lambda name, dio: (
        f'[webhook.{name}]\ndio = "{dio}"\nauth = {{ scheme = "hmac", header = "X-Signature", secrets = ["env:SECRET"] }}\n'
    )
    return "\n".join(
        [
            '[server]\nlisten = "127.0.0.1:0"' + ('\nauth = { tokens = ["env:TOKEN"] }' if auth else ""),
            '[dio.items]\nsource = { csv = "items.csv" }\n[dio.items.columns.name]\ntype = "string"\nflags = ["searchable"]',
            '[dio.orders]\nsource = { sqlite = "shop.db", table = "orders" }',
            hook("items", "items"),
            *(hook(f"orders{n}", "orders") for n in (1, 2, 3, 4)),
        ]
    )


def sources(folder):
    """Files of the two resources."""
    numbers = random.Random(3)
    with open(folder / "items.csv", "w") as out:
        out.write("id,grp,name,description,price,weight,status,made\n")
        for n in range(1, ITEMS + 1):
            text = f"{numbers.getrandbits(96):024x} {numbers.getrandbits(32):08x} {n % 977}"
            status = ("new", "paid", "baking", "ready")[n % 4]
            out.write(
                f"{n},{n % GROUPS},item {numbers.getrandbits(64):016x},{text},{n * 7 % 1000},{n % 313}.5,{status},2026-{n % 12 + 1:02}-{n % 28 + 1:02}\n"
            )
    base = sqlite3.connect(folder / "shop.db")
    base.execute("create table orders (id integer primary key, customer text, quantity integer, price integer, status text)")
    rows = ((n, f"customer {n % 991}", n % 10, n * 13 % 5000, ("new", "paid")[n % 2]) for n in range(1, ORDERS + 1))
    base.executemany("insert into orders values (?,?,?,?,?)", rows)
    base.commit()
    base.close()


class Server:
    """A running server in a folder of its own."""

    def __init__(self, program, kept, auth):
        self.folder = Path(tempfile.mkdtemp(prefix="diorama-attack-"))
        shutil.copytree(kept, self.folder, dirs_exist_ok=True)
        (self.folder / "diorama.toml").write_text(config(auth))
        self.errors = open(self.folder / "err.txt", "wb")
        self.output = open(self.folder / "out.txt", "wb")
        env = {**os.environ, "SECRET": SECRET.decode(), "TOKEN": TOKEN}
        self.process = subprocess.Popen(
            [program, "serve", "diorama.toml"], cwd=self.folder, stdout=self.output, stderr=self.errors, env=env
        )
        try:
            self.port = self.ready()
        except BaseException:
            self.stop()
            raise

    def ready(self):
        """The port, once the server says that it is ready."""
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            said = (self.folder / "out.txt").read_text()
            if "\nready" in said:
                line = next(line for line in said.splitlines() if line.startswith("listening on "))
                return int(line.rsplit(":", 1)[1])
            time.sleep(0.05)
        raise SystemExit("the server does not start:\n" + (self.folder / "err.txt").read_text()[-4000:])

    def memory(self, key):
        """A line of /proc/PID/status in MiB."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))
        except (OSError, StopIteration):
            return 0.0

    def rest(self):
        """Resident memory once it has not moved for a second, and the peak counted anew from here."""
        last, still = self.memory("VmRSS"), 0
        for _ in range(50):
            time.sleep(0.2)
            now = self.memory("VmRSS")
            still = still + 1 if abs(now - last) < 1 else 0
            last = now
            if still == 5:
                break
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")

    def answers(self):
        """Whether a point read is answered within five seconds."""
        try:
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            link.request("GET", "/items/1", headers={"Authorization": f"Bearer {TOKEN}"})
            return self.process.poll() is None and link.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def log_bytes(self):
        return (self.folder / "err.txt").stat().st_size

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.errors.close()
        self.output.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def measure(program, kept, name, pool):
    """One attack on a fresh server; gives its row of the table."""
    auth = name == "j"
    server = Server(program, kept, auth)
    try:
        rest = server.rest()
        logged = server.log_bytes()
        until = time.monotonic() + SECONDS
        reads = pool.submit(probes.reads, server.port, ITEMS, TOKEN if auth else None, until)
        writes = pool.submit(probes.writes, server.port, ORDERS, until) if name == "e" else None
        here = Path(__file__).parent
        # A process of its own, which gives way to the server and to the steady clients.
        attacker = subprocess.Popen(
            ["nice", "-n", "10", sys.executable, here / "run.py", "--attacker", name, str(server.port), str(SECONDS)],
            stdout=subprocess.PIPE, text=True,
        )
        stopped = False
        while attacker.poll() is None:
            time.sleep(0.05)
            if server.memory("VmRSS") > STOP_MIB or time.monotonic() > until + 30:
                stopped = True
                attacker.kill()
                break
        said = attacker.communicate()[0]
        statuses = json.loads(said) if said and not stopped else {"stopped": 1}
        latencies, answered = reads.result()
        row = {
            "attack": name, "rest": rest, "peak": server.memory("VmHWM"), "after": server.memory("VmRSS"),
            "reads": probes.percentiles(latencies), "answered": answered, "statuses": statuses, "stopped": stopped,
        }
        if writes:
            row["writes"], row["written"] = probes.percentiles(writes.result()[0]), writes.result()[1]
        time.sleep(0.2)
        row["lost"] = not server.answers()
        row["log"] = server.log_bytes() - logged
        return row
    finally:
        server.stop()


def counts(statuses):
    return " ".join(f"{status}:{count}" for status, count in sorted(statuses.items()))


def report(row):
    """Print a row; gives whether it is within the bounds of sanity."""
    goal = row["rest"] * 1.5 + BUDGET_MIB
    met = lambda yes: "met" if yes else "MISSED"
    p50, p99, most = row["reads"]
    print(f"({row['attack']}) {ATTACKS[row['attack']][0]}")
    print(
        f"    memory MiB: rest {row['rest']:.0f}, peak {row['peak']:.0f}, after {row['after']:.0f}"
        f"; goal {goal:.0f} {met(row['peak'] <= goal)}"
    )
    print(f"    point reads ms: p50 {p50:.1f}, p99 {p99:.1f}, max {most:.0f}; goal p99 {P99_MS} {met(p99 <= P99_MS)}  [{counts(row['answered'])}]")
    if "writes" in row:
        p50, p99, most = row["writes"]
        print(f"    acknowledgements ms: p50 {p50:.1f}, p99 {p99:.1f}, max {most:.0f}  [{counts(row['written'])}]")
    print(f"    attackers got: {counts(row['statuses'])}; log {row['log'] / 1024:.0f} KiB", flush=True)
    faults = []
    if row["lost"]:
        faults.append("the server does not answer any more")
    if row["stopped"]:
        faults.append("the attack was stopped: too much memory, or it did not end")
    if row["peak"] > MOST_MIB:
        faults.append(f"more than {MOST_MIB:.0f} MiB")
    for fault in faults:
        print(f"    FAILED: {fault}", flush=True)
    return not faults


def main():
    program, names = sys.argv[1], sys.argv[2:] or list(ATTACKS)
    if unknown := set(names) - set(ATTACKS):
        raise SystemExit(f"there is no attack {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    with tempfile.TemporaryDirectory(prefix="diorama-attack-") as kept, ProcessPoolExecutor(2) as pool:
        sources(Path(kept))
        print(f"{os.cpu_count()} cores, {ITEMS} items, {ORDERS} orders, {SECONDS:g} s for each attack; goal of memory: 1.5 x rest + {BUDGET_MIB:.0f} MiB")
        fine = [report(measure(program, kept, name, pool)) for name in names]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    if sys.argv[1] == "--attacker":
        print(json.dumps(attack(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
    else:
        main()
