#!/usr/bin/env python3
"""How well differences are found: planted defects under noise, by Pointsman, by deep-equal and by Diffy's method.

A small shop answers (legacy); its calls to a bank, a stock and a mail service go through the egress listener. A workflow on
each route in `shadow` (families: `dark`) answers the same from its own services, and makes the same calls, rehearsed from
legacy's. Each defect of `defects.py` has a route of its own, so that all of them are measured at the same time; the noise of
`shop.py` is always on. Two sets of rules: `suggested` is what `pointsman diffs --suggest` proposes after a warm-up without
defects and without any rule, applied as it is; `hand` is written by somebody who knows the shop (`files.py`).

For each defect: requests one after the other until the first one that it changes, then it is asked whether that pair was
found and what was named; then further requests. For clean routes: how many pairs differ (false alarms).
"""
import argparse, asyncio, collections, json, random, re, subprocess, sys, tempfile, time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
import rig  # noqa: E402

import files, others, services, shop, web  # noqa: E402
from defects import DEFECTS  # noqa: E402

CLEAN_SHARES = {"create": 0.30, "get": 0.25, "cancel": 0.10, "page": 0.10, "csv": 0.10, "xml": 0.10, "family": 0.05}


class Bench:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.ports = {name: rig.free_port() for name in ("proxy", "admin", "egress", "services")}
        self.admin = f"http://127.0.0.1:{self.ports['admin']}"
        self.services = services.Services(args.seed, self.ports["services"], self.ports["egress"])
        self.flags = files.Flags(folder / "flags", self.ports["services"], self.ports)
        self.client = web.Client(self.ports["proxy"])
        self.sent = collections.Counter()   # requests of each route since its evidence began
        self.pairs = {}                     # of a request: (route, shape, legacy's reply), for the other methods
        self.deep_equal = others.DeepEqual()
        self.number, self.is_warm_up = 0, False
        self.chosen = [defect for defect in DEFECTS if not args.only or re.search(args.only, defect.name)]

    async def start(self):
        await self.services.start()
        self.flags.write({}, [])
        self.process = rig.start([self.args.binary, "serve", "--flags", self.folder / "flags"], stderr=open(self.folder / "log", "w"))
        rig.wait_port(self.ports["admin"], "pointsman", self.process)
        while (await self.ask("/readyz"))[0] != 200:
            await asyncio.sleep(0.05)

    async def ask(self, path, body=None):
        return await asyncio.to_thread(rig.http, self.admin + path, body)

    async def command(self, *words):
        process = await asyncio.create_subprocess_exec(
            str(self.args.binary), *words, "--json", "--admin", self.admin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, error = await process.communicate()
        if process.returncode:
            sys.exit(f"pointsman {' '.join(words)}: {error.decode() or out.decode()}")
        return json.loads(out)

    async def reload(self):
        status, text = await self.ask("/api/v2/reload", {})
        if status != 200:
            sys.exit(f"reload: {status} {text}")

    async def use_rules(self, rules, defects):
        """Puts the rules into force on the clean routes and on those of these defects."""
        self.flags.write(rules, defects)
        await self.reload()
        await self.reload()  # the first one raises the followers to `dark`, the second one the routes that they follow
        self.before = await self.all_counts()
        self.sent.clear()

    # --- evidence ----------------------------------------------------------------------------------------------------------
    async def all_counts(self):
        """What became of the pairs of each route since the process started: (outcome, reason) -> how many."""
        counts = collections.defaultdict(collections.Counter)
        for line in (await self.ask("/metrics"))[1].splitlines():
            if found := re.match(r'pointsman_comparisons_total\{route="([^"]*)",outcome="([^"]*)",reason="([^"]*)"\} (\d+)', line):
                counts[found.group(1)][found.group(2), found.group(3)] += int(found.group(4))
        return counts

    async def settled(self, names):
        """What became of the pairs of these routes under the rules in force, when all that was sent has been judged."""
        deadline = time.monotonic() + 90
        while True:
            counts = await self.all_counts()
            out = {name: counts[files.route_id(name)] - self.before[files.route_id(name)] for name in names}
            late = [name for name in names if out[name].total() < self.sent[name]]
            if not late or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.3)
        for name in late:
            print(f"not judged after 90 s: {name}: {self.sent[name]} sent, {dict(out[name])}", flush=True)
        return out

    async def named(self, name):
        """The differences of all groups, each with the number of its group's pairs."""
        diffs = json.loads((await self.ask(f"/api/v2/routes/{files.route_id(name)}/diffs?limit=50"))[1])
        return [(group["count"], group["differences"]) for group in diffs["groups"]]

    # --- requests ----------------------------------------------------------------------------------------------------------
    async def send(self, name, shape, method, target, headers=None, body=b""):
        self.number += 1
        key = f"{name}/{self.number}"
        reply = await self.client.send(method, target, {"x-bench": key, **(headers or {})}, body)
        self.sent[name if shape != "follow" else f"{name}.follow"] += 1
        headers = {name: reply.headers[name] for name in ("content-type", "location", "cache-control") if name in reply.headers}
        self.pairs[key] = (shape, (reply.status, headers, reply.body))
        return key, reply

    async def request(self, name, shape, draw):
        """Sends the next request of a route (of a family: a create and two reads); returns the keys."""
        if shape in ("create", "family"):
            body = json.dumps(shop.order_request(draw, self.number)).encode()
            key, reply = await self.send(name, shape, "POST", f"/{name}/orders", {"content-type": "application/json"}, body)
            keys = [key]
            if shape == "family" and reply.status == 201:
                target = f"/{name}/orders/{json.loads(reply.body)['id']}"
                keys += [(await self.send(name, "follow", "GET", target))[0] for _ in range(2)]
            return keys
        stored = self.services.stored
        # In a warm-up few orders are read, each often: `--suggest` ignores a line only where equal requests differ.
        number = draw.choice(stored[:2] if self.is_warm_up else stored[:40] if draw.random() < 0.8 else stored)
        number = 99 if draw.random() < 0.04 else number
        tail = {"get": "", "cancel": "/cancel"}.get(shape, f"/{shape}")
        method = "POST" if shape == "cancel" else "GET"
        return [(await self.send(name, shape, method, f"/{name}/orders/{number}{tail}"))[0]]

    async def until_answered(self, keys, seconds=6):
        """Waits until the engine has answered these requests in the shadow."""
        deadline = time.monotonic() + seconds
        while any(key not in self.services.candidate for key in keys) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    async def many(self, name, shape, count, seed):
        """Sends about this many requests, a few at a time."""
        draw, left = random.Random(seed), count
        keys = []

        async def worker():
            nonlocal left
            while left > 0:
                left -= 3 if shape == "family" else 1
                async with self.room:
                    new = await self.request(name, shape, draw)
                    await self.until_answered(new)  # the shadow runs at most this far behind
                keys.extend(new)

        await asyncio.gather(*(worker() for _ in range(4)))
        return keys

    # --- the stages --------------------------------------------------------------------------------------------------------
    async def suggest(self):
        """Warm-ups with the first rules, then with those proposed so far, until nothing more is proposed; returns the rules."""
        rules, log = dict(files.FIRST_RULES), []
        self.is_warm_up = True
        for turn in range(1, 7):
            await self.use_rules(rules, [])
            keys = {shape: await self.many(f"clean-{shape}", shape, self.args.warm_up, f"{self.args.seed} warm-up {shape} {turn}") for shape in CLEAN_SHARES}
            counts = await self.settled([f"clean-{shape}" for shape in CLEAN_SHARES] + ["clean-family.follow"])
            for all_keys in keys.values() if turn == 1 else []:
                await self.until_answered(all_keys)
                for key in all_keys:
                    self.other_pair(key, self.deep_equal.learn)
            added = 0
            for name, count in counts.items():
                shape = "follow" if name.endswith(".follow") else name.removeprefix("clean-")
                if not count["mismatched", ""]:
                    continue
                told = await self.command("diffs", files.route_id(name), "--suggest")
                (self.folder / f"suggest-{turn}-{shape}.json").write_text(json.dumps(told, indent=1))
                left = [f"{place['kind']} {place['path']} ({place['why']})" for place in told["unexplained"]]
                log.append(dict(turn=turn, shape=shape, mismatched=count["mismatched", ""], pairs=count.total(),
                                added=[row["rule"].strip() for row in told["added"]] + [row["compares"] for row in told["stricter"]], unexplained=left))
                added += len(told["added"]) + len(told["stricter"])
                if told["added"] or told["stricter"]:
                    rules[shape] = told["stricter_rules"] or told["rules"]
            if not added:
                break
        self.is_warm_up = False
        for row in log:
            print(f"suggest, turn {row['turn']}, {row['shape']}: {row['mismatched']} of {row['pairs']} pairs differ; "
                  f"added {len(row['added'])}; unexplained: {row['unexplained']}", flush=True)
        return rules

    def other_pair(self, key, use):
        """Hands the pair to another method, if the engine answered."""
        shape, primary = self.pairs[key]
        if key in self.services.candidate:
            return use(shape, primary, self.services.candidate[key])
        return None

    async def clean(self, rules_name):
        """Pairs without a defect: what is reported is a false alarm."""
        self.room = asyncio.Semaphore(self.args.in_flight)
        wanted = {shape: int(self.args.clean * share) for shape, share in CLEAN_SHARES.items()}
        began = time.monotonic()
        keys = dict(zip(wanted, await asyncio.gather(*(
            self.many(f"clean-{shape}", shape, count, f"{self.args.seed} clean {shape} {rules_name}") for shape, count in wanted.items()))))
        keys["follow"] = [key for key in keys["family"] if self.pairs[key][0] == "follow"]
        keys["family"] = [key for key in keys["family"] if self.pairs[key][0] == "family"]
        route = {shape: f"clean-{shape}" if shape != "follow" else "clean-family.follow" for shape in keys}
        counts = await self.settled(route.values())
        for shape, of_shape in keys.items():
            count = counts[route[shape]]
            await self.until_answered(of_shape, 1)
            diffy, ever = others.Diffy(), set()
            alarms = [alarms for key in of_shape if (alarms := self.other_pair(key, self.deep_equal.alarms))]
            for key in of_shape:
                if key in self.services.candidate:
                    ever |= diffy.add(self.pairs[key][1], self.services.secondary[key], self.services.candidate[key])
            yield dict(rules=rules_name, defect="none", shape=shape, sent=len(of_shape), compared=compared(count),
                       mismatched=count["mismatched", ""], not_compared=not_compared(count),
                       names=[short(found) for found in await self.named(route[shape])],
                       deep_equal=sum(every for every, _ in alarms), deep_equal_masked=sum(masked for _, masked in alarms),
                       diffy_fields_at_end=len(diffy.reported()), diffy_reported=sorted(diffy.reported()), diffy_fields_ever=len(ever), seconds=round(time.monotonic() - began, 1))

    async def defects(self, rules_name):
        """Each defect on its own route: the first pair that has it, then further ones."""
        chosen = self.chosen
        self.room = asyncio.Semaphore(self.args.in_flight)
        keys = {defect.name: [] for defect in chosen}

        async def until_first(defect):
            draw = random.Random(f"{self.args.seed} {defect.name} {rules_name}")
            for _ in range(self.args.first_within):
                async with self.room:
                    new = await self.request(defect.name, defect.shape, draw)
                    await self.until_answered(new)
                keys[defect.name] += new
                if self.services.defective.intersection(new):
                    return

        def routes_of(defect):
            return [defect.name] + ([f"{defect.name}.follow"] if defect.shape == "family" else [])

        names = [name for defect in chosen for name in routes_of(defect)]
        await asyncio.gather(*map(until_first, chosen))
        first = await self.settled(names)
        first_named = {name: await self.named(name) if first[name]["mismatched", ""] else [] for name in names}
        first_keys = {name: list(of) for name, of in keys.items()}
        for defect, of in zip(chosen, await asyncio.gather(*(
                self.many(defect.name, defect.shape, self.args.further, f"{self.args.seed} {defect.name} {rules_name} further") for defect in chosen))):
            keys[defect.name] += of
        last = await self.settled(names)
        for defect in chosen:
            of = keys[defect.name]
            await self.until_answered(of, 1)
            defective = [key for key in of if key in self.services.defective]
            total = sum((last[name] for name in routes_of(defect)), collections.Counter())
            groups = [group for name in routes_of(defect) for group in await self.named(name)]
            of_first = [group for name in routes_of(defect) for group in first_named[name]]
            right = [any(map(defect.is_named_by, differences)) for _, differences in groups]
            others_named = sorted({f"{one['kind']} {one['path']}" for _, differences in groups for one in differences if not defect.is_named_by(one)})
            found_first = any(any(map(defect.is_named_by, differences)) for _, differences in of_first)
            alarms = [self.other_pair(key, self.deep_equal.alarms) for key in defective]
            yield dict(rules=rules_name, defect=defect.name, shape=defect.shape, at=defect.at, sent=len(of), sent_until_first=len(first_keys[defect.name]),
                       defective=len(defective), compared=compared(total), mismatched=total["mismatched", ""], not_compared=not_compared(total),
                       first_mismatched=sum(first[name]["mismatched", ""] for name in routes_of(defect)), found_in_first=found_first,
                       named="right" if any(right) else "wrong" if groups else "not found", others=others_named,
                       names=[short(found) for found in groups],
                       why_skipped=await self.why_skipped(routes_of(defect)) if any("unresolved" in reason for reason in not_compared(total)) else {},
                       deep_equal=sum(bool(one and one[0]) for one in alarms), deep_equal_masked=sum(bool(one and one[1]) for one in alarms),
                       **self.diffy_until_found(defect, of))

    async def why_skipped(self, names):
        """Why no reply of legacy's calls was found for a step: reason -> how many requests."""
        out = collections.Counter()
        for name in names:
            out.update(json.loads((await self.ask(f"/api/v2/routes/{files.route_id(name)}/evidence"))[1])["evidence"]["unresolved"])
        return dict(out)

    def diffy_until_found(self, defect, keys):
        """After how many pairs with the defect Diffy's method reports its field, and which other fields it reports at the end."""
        words = re.findall(r"[a-z_-]{2,}", re.sub(r"headers?\?", "", defect.path))
        field = words[-1] if words else "content"
        if defect.kinds == "status":
            field = "Field"  # each status is a field of its own, which one side lacks
        elif field in ("body", "text") or defect.shape not in ("create", "get", "family") and field != "content-type":
            field = "content"  # a body that is no JSON is one text
        diffy, seen, found = others.Diffy(), 0, None
        for key in keys:
            if key not in self.services.candidate:
                continue
            seen += key in self.services.defective
            reported = diffy.add(self.pairs[key][1], self.services.secondary[key], self.services.candidate[key])
            if found is None and seen and not defect.kinds.startswith("effect") and any(field in name for name in reported):
                found = seen
        return dict(diffy_pairs=found or "never", diffy_others=len([name for name in diffy.reported() if field not in name]))


OUTCOMES = [("matched", ""), ("ignored", ""), ("mismatched", "")]


def compared(count):
    return sum(count[outcome] for outcome in OUTCOMES)


def not_compared(count):
    return {f"{outcome} {reason}".strip(): pairs for (outcome, reason), pairs in count.items() if (outcome, reason) not in OUTCOMES and pairs}


def short(found):
    count, differences = found
    return f"{count}: " + ", ".join(f"{one['kind']} {one['path']}" for one in differences[:4])


def table(rows):
    clean, planted = [row for row in rows if row["defect"] == "none"], [row for row in rows if row["defect"] != "none"]
    for rules in dict.fromkeys(row["rules"] for row in rows):
        of = [row for row in clean if row["rules"] == rules]
        if of:
            compared = sum(row["compared"] for row in of)
            per = 10_000 / max(1, compared)
            reasons = collections.Counter()
            for row in of:
                reasons.update(row["not_compared"])
            print(f"\n{rules}: {compared} clean pairs compared of {sum(row['sent'] for row in of)}; not compared: {dict(reasons)}\n"
                  f"  false alarms per 10,000: {sum(row['mismatched'] for row in of) * per:.2f}; deep-equal {sum(row['deep_equal'] for row in of) * per:.0f}; "
                  f"deep-equal with masked paths {sum(row['deep_equal_masked'] for row in of) * per:.0f}; "
                  f"Diffy: {sum(row['diffy_fields_at_end'] for row in of)} fields at the end, {sum(row['diffy_fields_ever'] for row in of)} at some time")
            for row in of:
                if row["mismatched"]:
                    print(f"  {row['shape']}: {row['mismatched']} of {row['compared']}: {'; '.join(row['names'])}")
        of = [row for row in planted if row["rules"] == rules]
        if not of:
            continue
        print(f"  {'defect':28} {'pairs':>5} {'with':>5} {'differ':>6} {'first':>5}  {'named':9} {'masked':>6} {'Diffy':>6}  beside it")
        for row in of:
            print(f"  {row['defect']:28} {row['sent']:5} {row['defective']:5} {row['mismatched']:6} {'yes' if row['found_in_first'] else 'NO':>5}  {row['named']:9} "
                  f"{row['deep_equal_masked']:6} {row['diffy_pairs']:>6}  {'; '.join(row['others'])[:110]}{'  ' + str(row['not_compared']) if row['not_compared'] else ''}")
        found = sum(row["found_in_first"] for row in of)
        every = sum(row["mismatched"] == row["defective"] for row in of)
        print(f"{rules}: {found} of {len(of)} kinds found and named in the first pair, {sum(row['named'] == 'right' for row in of)} in some pair; in {every} every pair with "
              f"the defect differs and no other; masked deep-equal: {sum(row['deep_equal_masked'] > 0 for row in of)}; Diffy: {sum(row['diffy_pairs'] != 'never' for row in of)}")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binary", type=Path, default=rig.BINARY)
    parser.add_argument("--warm-up", type=int, default=120, help="requests of each shape in each warm-up")
    parser.add_argument("--clean", type=int, default=10_400, help="requests without a defect, for each set of rules")
    parser.add_argument("--first-within", type=int, default=400, help="requests to a route at most until its defect has changed one")
    parser.add_argument("--further", type=int, default=24, help="requests to a route after that")
    parser.add_argument("--in-flight", type=int, default=6)
    parser.add_argument("--only", help="only the defects whose name fits this pattern")
    parser.add_argument("--rules", default="suggested,hand")
    parser.add_argument("--keep", type=Path, help="a new folder for the files, the store and the log, which stays")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    args = parser.parse_args()
    if not args.binary.exists():
        sys.exit("build first, or name the program with --binary")
    busy, began = rig.busy_share(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="detect-") as temp:
        folder = args.keep or Path(temp)
        bench, rows = Bench(args, folder), []
        bench.room = asyncio.Semaphore(args.in_flight)
        await bench.start()
        for name in args.rules.split(","):
            rules = await bench.suggest() if name == "suggested" else files.HAND_RULES
            if name == "suggested":
                rules_text = "\n".join(f"# {shape}\n{text}" for shape, text in rules.items())
                (folder / "suggested.yaml").write_text(rules_text)
                print(rules_text, flush=True)
            await bench.use_rules(rules, bench.chosen)
            if args.clean:
                rows += [row async for row in bench.clean(name)]
            rows += [row async for row in bench.defects(name)]
            print(f"{name}: done after {time.monotonic() - began:.0f} s", flush=True)
            notes = [f"machine: {rig.machine()}; busy before: {busy:.0%}; {time.monotonic() - began:.0f} s so far; binary: {args.binary.parent.name}/{args.binary.name}",
                     f"seed {args.seed}, warm-up {args.warm_up}, clean {args.clean}, further {args.further}, in flight {args.in_flight}",
                     "deep_equal and deep_equal_masked count alarms (masked: at paths that did not differ in the warm-up)"]
            if args.rows:
                rig.write_rows(args.rows, [{key: json.dumps(value) if isinstance(value, (dict, list)) else value for key, value in row.items()} for row in rows], notes)
        table(rows)
        print("\n".join(notes))
        rig.stop(bench.process)


asyncio.run(main())
