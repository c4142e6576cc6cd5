"""Legacy, the services that it calls, and the two services that only the engine calls, all on one port.

Paths: `/bank`, `/stock`, `/mail` are the outside world; `/next` serves the engine (`plan`, `render`, `view`); any other path
is legacy's: `/ROUTE/orders…`, where ROUTE names the defect that the engine's side has on that route.
"""
import copy, json, random, urllib.parse

import shop, web
from defects import BY_NAME

JSON = {"content-type": "application/json"}


class Services:
    def __init__(self, seed, port, egress_port):
        self.port = port
        self.egress = web.Client(egress_port)
        self.legacy = shop.Orders(shop.Draws(f"{seed} legacy", 17000, 880_000))
        self.engine = shop.Orders(shop.Draws(f"{seed} engine", 52000, 410_000))
        self.outside = random.Random(f"{seed} outside")
        self.memo = {}           # of each route, what the engine's side made there before
        self.pending = {}        # of a create or cancel of the engine: what is known between `plan` and `render`
        self.secondary = {}      # of a request: what another instance of legacy would have answered
        self.candidate = {}      # of a request: what the engine answers
        self.defective = set()   # the requests whose reply or calls a defect changed
        draw = random.Random(f"{seed} stored")
        for number in range(300):
            order = shop.facts(shop.order_request(draw, number, card="ok"))
            if order:
                ids = self.legacy.new_ids(order)
                ids["at"] = shop.time_text(1_790_000_000 + 61 * number)
                self.legacy.keep(order, ids, f"pay_{draw.getrandbits(64):016x}", [f"res_{draw.getrandbits(48):012x}" for _ in order["lines"]])
        self.stored = list(self.legacy.by_id)

    async def start(self):
        self.server = await web.serve(self.port, self.handle)

    async def handle(self, request):
        parts = request.target.split("?")[0].strip("/").split("/")
        if parts[0] in ("bank", "stock", "mail"):
            return self.outside_world(parts, request)
        if parts[0] == "next":
            status, headers, body = getattr(self, f"engine_{parts[1]}")(json.loads(request.body))
        else:
            status, headers, body = await self.legacy_reply(parts, request)
        return status, headers, body

    # --- the outside world -------------------------------------------------------------------------------------------------
    def outside_world(self, parts, request):
        number = self.outside.getrandbits(64)
        if parts[:2] == ["bank", "charges"]:
            if json.loads(request.body)["customer"] >= 9000:  # a card that is declined
                return 402, JSON, b'{"error":"declined"}'
            return 201, JSON, json.dumps({"id": f"pay_{number:016x}"}).encode()
        if parts[:2] == ["bank", "refunds"]:
            return 201, JSON, json.dumps({"id": f"ref_{number:016x}"}).encode()
        if parts[0] == "stock":
            return 201, JSON, json.dumps({"id": f"res_{number & 0xffffffffffff:012x}"}).encode()
        return 202, JSON, b'{"queued":true}'

    # --- what both sides send to the outside world -------------------------------------------------------------------------
    def calls(self, side, request, order, ids):
        draws, at = side.draws, shop.now()
        number = order["customer"] + (5000 if request["card"] == "declined" else 0)
        return {
            "reserve": [{"order": ids["id"], "sku": line["sku"], "qty": line["qty"], "requested_at": at} for line in order["lines"]],
            "charge": [{"order": ids["id"], "customer": number, "amount": order["total"], "currency": "EUR", "nonce": draws.hex(32), "requested_at": at}],
            "mails": [{"order": ids["id"], "to": order["email"], "subject": f"Order {ids['id']} confirmed", "template": "confirmation", "trace": draws.hex(32)}]}

    # --- legacy ------------------------------------------------------------------------------------------------------------
    async def legacy_reply(self, parts, request):
        route, draws = parts[0], self.legacy.draws
        key, trace = request.headers.get("x-bench"), request.headers.get("traceparent", "")

        async def send(target, body, kind="application/json"):
            return await self.egress.send("POST", target, {"traceparent": trace, "content-type": kind}, body)

        async def send_mail(one):
            await send(f"/mail/orders/{one['order']}/mails", shop.dumps({name: one[name] for name in one if name != "order"}).encode())

        if len(parts) == 2:
            reply = await self.legacy_create(route, json.loads(request.body), send, send_mail)
        elif parts[-1] == "cancel" and int(parts[2]) in self.legacy.by_id:
            order = self.legacy.by_id[int(parts[2])]
            refund = await send("/bank/refunds", urllib.parse.urlencode(self.refund(order)).encode(), "application/x-www-form-urlencoded")
            await send_mail({"order": parts[2], "to": order["email"], "subject": f"Order {parts[2]} cancelled", "template": "cancellation", "trace": draws.hex(32)})
            reply = shop.cancelled(order, json.loads(refund.body)["id"], draws)
        else:
            reply = self.view(self.legacy, int(parts[2]), parts[3] if len(parts) > 3 else "get", draws)
        if key:
            with shop.second_instance():
                status, headers, doc = self.second_reply(parts, request, reply[0])
            self.secondary[key] = (status, headers, shop.body_bytes(headers, doc))
        return reply[0], reply[1], shop.body_bytes(reply[1], reply[2])

    async def legacy_create(self, route, body, send, send_mail):
        order, draws = shop.facts(body), self.legacy.draws
        if order is None:
            return self.unknown_article(draws)
        ids = self.legacy.new_ids(order)
        calls, mails_first = self.calls(self.legacy, body, order, ids), route == "legacy_mails_first"
        reservations = [json.loads((await send("/stock/reservations", shop.dumps(one).encode())).body)["id"] for one in calls["reserve"]]
        if mails_first and body["card"] == "ok":
            await send_mail(calls["mails"][0])
        for _ in range(2 if route == "legacy_charges_twice" else 1):
            charged = await send("/bank/charges", shop.dumps(calls["charge"][0]).encode())
        if charged.status == 402:
            return self.declined(order, draws)
        if not mails_first:
            await send_mail(calls["mails"][0])
        return shop.created(self.legacy.keep(order, ids, json.loads(charged.body)["id"], reservations), draws)

    def second_reply(self, parts, request, status):
        """What another instance of legacy, with its own bank and stock, answers to the same request."""
        draws = self.legacy.draws
        if len(parts) == 2:
            order = shop.facts(json.loads(request.body))
            if status == 201:
                drawn = {"payment": f"pay_{draws.hex(16)}", "reservations": [f"res_{draws.hex(12)}" for _ in order["lines"]]}
                return shop.created({**order, "ids": self.legacy.new_ids(order), **drawn}, draws)
            return self.declined(order, draws) if order else self.unknown_article(draws)
        if parts[-1] == "cancel" and int(parts[2]) in self.legacy.by_id:
            return shop.cancelled(self.legacy.by_id[int(parts[2])], f"ref_{draws.hex(16)}", draws)
        return self.view(self.legacy, int(parts[2]), parts[3] if len(parts) > 3 else "get", draws)

    def unknown_article(self, draws):
        return shop.refused(422, "unknown_article", "article SKU-404 is not sold", draws)

    def declined(self, order, draws):
        return shop.refused(402, "declined", f"card of customer {order['customer']} was declined", draws)

    def refund(self, order):
        return {"order": str(order["ids"]["id"]), "amount": str(order["total"]), "payment": order["payment"], "reason": "customer"}

    def view(self, side, number, view, draws):
        order = side.by_id.get(number)
        if order is None:  # whatever is asked of it
            return shop.refused(404, "not_found", f"no order {number}", draws)
        return shop.VIEWS[view](order, draws)

    # --- the engine's own services -----------------------------------------------------------------------------------------
    def changed(self, defect, at, key, thing, order, memo):
        """The thing as the defect leaves it. Notes the request if it changed."""
        if defect is None or defect.at != at or defect.change is None:
            return thing
        after = copy.deepcopy(thing)
        defect.change(after, order, memo)
        if repr(after) != repr(thing):
            self.defective.add(key)
        return after

    def engine_plan(self, call):
        """What the engine is about to send for a create or a cancel."""
        route, key, body = call["path"].strip("/").split("/")[0], call["key"], call["body"]
        defect = BY_NAME.get(route)
        memo = self.memo.setdefault(route, {"other": 51_000, "first": None})
        if call["path"].endswith("/cancel"):
            number = int(call["path"].split("/")[3])
            order = self.legacy.by_id.get(number)  # one database of orders, read by both
            plan = {"refused": order is None, "mails": [], "refund": {}}
            if order:
                plan.update(refund=self.refund(order), mails=[{
                    "order": str(number), "to": order["email"], "subject": f"Order {number} cancelled", "template": "cancellation", "trace": self.engine.draws.hex(32)}])
            self.pending[key] = (route, order, number)
        else:
            order = shop.facts(body)
            ids = self.engine.new_ids(order) if order else {"id": 0}
            if defect and defect.at == "ids" and memo["first"] and order and body["card"] == "ok":
                ids["id"] = memo["first"]
                self.defective.add(key)
            empty = {"reserve": [], "charge": [], "mails": []}
            plan = {"refused": order is None, "id": ids["id"], **(self.calls(self.engine, body, order, ids) if order else empty),
                    "charge_again": []}
            self.pending[key] = (route, order, ids)
        plan = self.changed(defect, "plan", key, plan, order, memo)
        if defect and defect.at in ("workflow", "legacy") and order and (body["card"] == "ok" or "mail" not in defect.name):
            self.defective.add(key)
        return 200, JSON, shop.dumps({**plan, "key": key}).encode()

    def engine_render(self, call):
        """The engine's reply to a create or a cancel, after its calls."""
        key, draws = call["key"], self.engine.draws
        route, order, ids = self.pending.pop(key)
        memo, location = self.memo[route], None
        if call["cancel"]:
            reply = shop.cancelled(order, call["refund"], draws) if order else shop.refused(404, "not_found", f"no order {ids}", draws)
        elif order is None:
            reply = self.unknown_article(draws)
        elif call["declined"]:
            reply = self.declined(order, draws)
        else:
            reservations = call["reservations"] + ["res_000000000000"] * (len(order["lines"]) - len(call["reservations"]))
            reply = shop.created(self.engine.keep(order, ids, call["payment"] or "pay_0000000000000000", reservations), draws)
            location = ids["id"]
            memo["first"] = memo["first"] or ids["id"]
        out = self.answer(BY_NAME.get(route), key, reply, order, memo)
        if location:
            memo["other"] = location
        return out

    def engine_view(self, call):
        """The engine's reply to a read: of the common database, or, in a family, of the orders that the engine made."""
        key, parts = call["key"], call["path"].strip("/").split("/")
        defect, side = BY_NAME.get(parts[0]), self.legacy if call["id"] is None else self.engine
        number = int(parts[2] if call["id"] is None else call["id"])
        if defect and defect.at == "read" and number in side.by_id:
            number = next(iter(side.by_id)) if number - 1 not in side.by_id else number - 1
            self.defective.add(key)
        reply = self.view(side, number, parts[3] if len(parts) > 3 else "get", self.engine.draws)
        return self.answer(defect, key, reply, side.by_id.get(number), self.memo.setdefault(parts[0], {}))

    def answer(self, defect, key, reply, order, memo):
        status, headers, doc = reply
        doc = self.changed(defect, "doc", key, doc, order, memo)
        wire = self.changed(defect, "wire", key, {"status": status, "headers": dict(headers), "body": shop.body_bytes(headers, doc)}, order, memo)
        self.candidate[key] = (wire["status"], wire["headers"], wire["body"])
        passed = {f"x-reply-{name}": value for name, value in wire["headers"].items()}
        return 200, {"content-type": "application/octet-stream", "x-reply-status": wire["status"], **passed}, wire["body"]
