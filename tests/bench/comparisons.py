#!/usr/bin/env python3
"""What a comparison costs: CPU time per pair of 2 KB and of 1 MB of JSON, and of pairs that are made to be expensive.

Nothing in the released program compares and does nothing else. `pointsman rehearse --from FILE` runs workflows over
stored pairs without network, listener or store on disk: a pair is read from its line, the engine runs a workflow
without a call, whose answer is the body of the request, and both are compared. Here the body of the request is the
engine's reply, byte for byte, and the pair has legacy's. So a pair of any two bodies can be measured.

The CPU time per pair is the slope between a file with few pairs and one with many, which takes out the start of the
process. The same bodies as `application/octet-stream` are compared by their digests: the time for these is what
reading, run and settling cost, and the difference to it (`comparison_us`) is parsing both bodies, comparing them and,
of the first pairs that differ in a place, the sample that is kept. Goals: 30,000 pairs of 2 KB per second and core (33
us), a pair of 1 MB below 20 ms, and the worst pair ends at its deadline (`compare_ms`, here the default of 250 ms of
wall time; what exceeds it by more than reading the pair is redaction and samples, which no deadline ends).

    cargo build --release && python3 tests/bench/comparisons.py [--rounds 5] [--rows FILE] [--quick]

Exits with 1 if an outcome is not what the pair is made for. No figure passes or fails.
Flatters the comparer: the digests of the baseline (microseconds for 2 KB) are subtracted too. Unfair to it: whatever
else the process does only for text, such as counting the places of differences, is in its figure. A pair that ends at its
deadline has no verdict (`over_budget`), or a mismatch that was found before.
"""
import argparse, collections, json, os, random, statistics, subprocess, sys, time
from pathlib import Path

sys.dont_write_bytecode = True
import rig

JSON, BYTES, TEXT = "application/json", "application/octet-stream", "text/plain"
SMALL, LARGE = 2_000, 1_000_000


def order(size, generator):
    """An order of about `size` bytes of JSON."""
    item = lambda n: {"sku": f"sku-{n:06}", "name": "Coupling rod, forged", "qty": n % 5 + 1, "price": round(generator.uniform(1, 999), 2),
                      "tags": ["steel", "heavy"], "ships": "2026-12-01T08:00:00Z"}
    out = {"id": "4b825dc6-42cb-4eb9-a060-e54bf8d69288", "status": "accepted", "total": 1234.5, "created_at": "2026-11-26T10:00:00Z", "items": []}
    length = len(json.dumps(out))
    while length < size:
        out["items"].append(item(len(out["items"])))
        length += len(json.dumps(out["items"][-1])) + 2
    return out


def copy(value):
    return json.loads(json.dumps(value))


def by_rules(legacy, generator):
    """Differs only in what RULES name: an id, a time, a number within the tolerance, the order of items."""
    other = copy(legacy)
    other.update(id="9b2d1a70-0000-4eb9-a060-e54bf8d69288", created_at="2026-11-26T10:00:01Z", total=1234.501)
    generator.shuffle(other["items"])
    return other


def one_value(legacy, generator):
    other = copy(legacy)
    other["items"][len(other["items"]) // 2]["qty"] += 1
    return other


RULES = "{ ids: [$.id], ignore: [$.created_at], tolerance: { $.total: 0.005 }, unordered: { $.items: sku } }"


def cases(generator):
    """(name, bytes, content type, rules, legacy's body, the engine's body, outcomes that are right)"""
    text = lambda value: json.dumps(value, separators=(",", ":"))
    for label, size in (("2 KB", SMALL), ("1 MB", LARGE)):
        legacy = order(size, generator)
        yield f"{label}: digests", size, BYTES, "{}", text(legacy), text(legacy), {"matched"}
        yield f"{label}: equal", size, JSON, "{}", text(legacy), text(legacy), {"matched"}
        yield f"{label}: equal by rules", size, JSON, RULES, text(legacy), text(by_rules(legacy, generator)), {"ignored"}
        yield f"{label}: one value differs", size, JSON, "{}", text(legacy), text(one_value(legacy, generator)), {"mismatched"}
    any_end = {"mismatched", "skipped", "failed"}
    numbers = lambda: [generator.randrange(10**9) for _ in range(80_000)]
    words = lambda: ["".join(generator.choices("abcdefghij", k=8)) for _ in range(80_000)]
    few = ["".join(generator.choices("ab", k=3)) for _ in range(120_000)]
    shuffled = generator.sample(few, len(few))
    pairs = lambda: [{"a": generator.randrange(100), "b": generator.randrange(100)} for _ in range(45_000)]
    deep = lambda leaf: "[" * 120 + ",".join(f'{{"k":{n},"v":{leaf + n}}}' for n in range(35_000)) + "]" * 120
    lines = lambda: "\n".join("".join(generator.choices("abcdefgh ", k=20)) for _ in range(45_000))
    yield "worst: other numbers", LARGE, JSON, "{}", text(numbers()), text(numbers()), any_end
    yield "worst: a set of other words", LARGE, JSON, "{ unordered: { $: set } }", text(words()), text(words()), any_end
    yield "worst: few words, other order", LARGE, JSON, "{}", text(few), text(shuffled), any_end
    yield "worst: ids that contradict", LARGE, JSON, "{ ids: ['$[*]'] }", text(few), text(shuffled), any_end
    yield "worst: a set of similar objects", LARGE, JSON, "{ unordered: { $: set } }", text(pairs()), text(pairs()), any_end
    yield "worst: deep, all differs", LARGE, JSON, "{}", deep(0), deep(1), any_end
    yield "worst: other lines", LARGE, TEXT, "{ text: {} }", lines(), lines(), any_end


def rehearse(folder, name, number, count):
    """CPU time in microseconds, wall time in seconds, and the outcomes."""
    began = time.perf_counter()
    with open(folder / f"{number}.out", "w+") as out:
        process = subprocess.Popen([rig.BINARY, "rehearse", "--flags", folder / "flags", "--from", folder / f"{number}-{count}.ndjson", "--json"], stdout=out,
                                   stderr=subprocess.PIPE)
        problems = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        try:
            report = json.load(out)
        except ValueError:
            sys.exit(f"{name}: rehearse ended with {process.returncode}: {problems[-1000:]}")
    found = report["routes"].get(f"case{number}")
    if not found:
        sys.exit(f"{name}: nothing was rehearsed: {report}")
    outcomes = {key: found[key] for key in ("matched", "ignored", "mismatched") if found[key]}
    outcomes |= {key: found[key] for key in ("skipped", "failed") if found[key]}
    return (usage.ru_utime + usage.ru_stime) * 1e6, time.perf_counter() - began, outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", help="the program to measure (default: the release build)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one round with few pairs")
    parser.add_argument("--dir", help="where the pairs go")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    args = parser.parse_args()
    rounds = args.rounds or (1 if args.quick else 5)
    if args.binary:
        rig.BINARY = Path(args.binary).resolve()
    if not rig.BINARY.exists():
        sys.exit(f"no {rig.BINARY}: build first (cargo build --release), or give --binary FILE")
    busy, generator, rows, problems = rig.busy_share(), random.Random(args.seed), [], []
    print(f"seed {args.seed}", flush=True)
    work_folder, _ = rig.work_folder(args.dir)
    with work_folder as folder:
        folder = Path(folder)
        for name in ("routes", "workflows"):
            (folder / "flags" / name).mkdir(parents=True)
        (folder / "flags/pointsman.yaml").write_text("listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nservices: { shop: 'http://127.0.0.1:9' }\n"
                                                     "default_legacy: shop\nstore: 'memory:'\n")
        routes, all_cases = ["routes:"], []
        for number, (name, size, kind, rules, legacy, engine, right) in enumerate(cases(generator)):
            routes.append(f"  - {{ id: case{number}, match: {{ method: POST, path: /case{number} }}, legacy: shop, workflow: w{number}, state: shadow, compare: {rules} }}")
            (folder / f"flags/workflows/w{number}.yaml").write_text(
                f"workflow: w{number}\nsteps: {{ nothing: {{ set: 1 }} }}\n"
                f"respond: {{ status: 200, headers: {{ content-type: {kind} }}, body: '${{request.raw}}' }}\n")
            pair = json.dumps({
                "version": 1, "id": "01935b6e-0000-7000-8000-000000000000", "route": f"case{number}", "at": "2026-11-26T10:00:00Z",
                "request": {"method": "POST", "path": f"/case{number}", "headers": [["content-type", BYTES]], "body": {"text": engine}},
                "legacy": {"status": 200, "headers": [["content-type", kind]], "body": {"text": legacy}}}) + "\n"
            counts = ((20, 220) if args.quick else (500, 10_500)) if size == SMALL else ((1, 2) if args.quick else (1, 5) if name.startswith("worst") else (2, 22))
            for count in counts:
                with open(folder / f"{number}-{count}.ndjson", "w") as out:
                    out.writelines(pair for _ in range(count))
            all_cases.append((number, name, counts, right))
        (folder / "flags/routes/all.yaml").write_text("\n".join(routes) + "\n")
        for at in range(rounds):
            for number, name, (few, many), right in generator.sample(all_cases, len(all_cases)):
                (cpu_few, wall_few, _), (cpu_many, wall_many, outcomes) = (rehearse(folder, name, number, count) for count in (few, many))
                row = dict(round=at, case=name, pairs=many - few, cpu_us_per_pair=round((cpu_many - cpu_few) / (many - few), 1),
                           wall_us_per_pair=round((wall_many - wall_few) / (many - few) * 1e6, 1), outcomes=json.dumps(outcomes))
                if not set(outcomes) <= right:
                    problems.append(f"{name}: {outcomes}")
                rows.append(row)
                print(json.dumps(row), flush=True)
    base = {(row["round"], row["case"].split(":")[0]): row["cpu_us_per_pair"] for row in rows if row["case"].endswith("digests")}
    for row in rows:
        size = row["case"].split(":")[0]
        row["comparison_us"] = round(row["cpu_us_per_pair"] - base[row["round"], "1 MB" if size == "worst" else size], 1)
    by_case = collections.defaultdict(list)
    for row in rows:
        by_case[row["case"]].append(row)
    lines = [f"{'case':32} {'CPU us/pair':>12} {'comparison us (median, range)':>40} {'pairs/s and core':>17}  outcomes"]
    for _, name, _, _ in all_cases:
        mine = by_case[name]
        of = [row["comparison_us"] for row in mine]
        middle = statistics.median(of)
        per_s = f"{1e6 / middle:.0f}" if middle > 0 and not name.endswith("digests") else "-"
        lines.append(f"{name:32} {statistics.median(row['cpu_us_per_pair'] for row in mine):12.1f} {f'{middle:.1f} ({min(of):.1f} to {max(of):.1f})':>40}"
                     f" {per_s:>17}  {mine[0]['outcomes']}")
    notes = [f"machine: {rig.machine()}; {busy:.0%} of the cores busy with other load before the start",
             f"command: python3 tests/bench/comparisons.py {' '.join(sys.argv[1:])}; seed {args.seed}", f"{rounds} rounds"]
    print("\n".join(["", *notes, "", *lines]))
    if args.rows:
        rig.write_rows(args.rows, rows, [*notes, *lines])
    if problems:
        sys.exit("\n".join(["not what the pair is made for:", *problems]))


main()
