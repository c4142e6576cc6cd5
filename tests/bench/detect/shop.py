"""The shop: what an order is, how each kind of reply shows it, and the noise that no two replies have in common.

Legacy and the engine's side share `facts`, so that clean pairs are equal but for noise and drawn ids. Noise, in all replies:
a generated trace id, times of now, the order of a list without order, ids that each side draws, a float that jitters (in
texts: a line that says when and how fast it was generated).
"""
import contextlib, datetime, decimal, hashlib, itertools, json, random, time, urllib.parse
from decimal import Decimal

CENT = Decimal("0.01")
NAMES = ["Ada Bergström", "Jörg Weiß", "Noël Dupré", "Zoë Ibáñez", "Mia Sørensen", "Bo Ångström"]
SKUS = {f"SKU-{n}": (Decimal(199 + 173 * n % 4001) / 100, Decimal(5 + 7 * n % 95) / 100) for n in range(10, 60)}


# --- JSON with numbers as they are written -------------------------------------------------------------------------------
def dumps(value):
    """JSON in which a Decimal keeps its digits (1.10); of `Twice`, the key stands twice."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key))}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)


class Twice(str):
    """A key that is unlike its equal in a dict: the JSON has the key twice."""
    __hash__ = object.__hash__
    __eq__ = object.__eq__


# --- what is drawn -------------------------------------------------------------------------------------------------------
class Draws:
    """Ids and noise of one side. Each side has its own, so that no two replies agree in what is drawn."""

    def __init__(self, seed, first_order, first_line):
        self.random = random.Random(seed)
        self.orders, self.lines = itertools.count(first_order), itertools.count(first_line)

    def hex(self, digits):
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def shuffled(self, items):
        return self.random.sample(items, len(items))

    def jitter(self, value):
        return value * (1 + self.random.uniform(-1e-9, 1e-9))


def time_text(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Clock:
    """The time of replies. A second instance of legacy reads it a little later."""
    later_s = 0.0


def now():
    return time_text(time.time() + Clock.later_s)


@contextlib.contextmanager
def second_instance():
    Clock.later_s = 0.007
    try:
        yield
    finally:
        Clock.later_s = 0.0


# --- requests ------------------------------------------------------------------------------------------------------------
def order_request(draw, number, **fixed):
    """The body of a create. Of a hundred, 4 are large, 4 name an unknown article, 3 have a card that is declined, 1 is a gift."""
    kind = draw.random()
    count = draw.randint(20, 26) if kind < 0.04 else draw.randint(1, 5)
    items = [{"sku": sku, "qty": draw.randint(1, 4)} for sku in draw.sample(list(SKUS), count)]
    if 0.04 <= kind < 0.08:
        items[0]["sku"] = "SKU-404"
    request = {
        "ref": f"web-{number}-{draw.getrandbits(32):08x}", "customer": draw.randint(4000, 4999), "items": items,
        "express": draw.random() < 0.2, "pickup": draw.random() < 0.1, "card": "declined" if 0.08 <= kind < 0.11 else "ok",
        "gift": 0.11 <= kind < 0.12, "deliver_by": time_text(1_800_000_000 + 900 * draw.randint(0, 5000)).replace(".000", "")}
    if draw.random() < 0.3:
        request["coupon"] = f"SAVE{draw.randint(10, 99)}"
    request.update(fixed)
    return request


# --- facts ---------------------------------------------------------------------------------------------------------------
def facts(request):
    """What both sides compute from a request; None if it names an unknown article."""
    if any(item["sku"] not in SKUS for item in request["items"]):
        return None
    lines = []
    for item in request["items"]:
        price, weight = SKUS[item["sku"]]
        lines.append({"sku": item["sku"], "qty": item["qty"], "price": price, "total": price * item["qty"], "weight": weight * item["qty"]})
    subtotal = sum(line["total"] for line in lines)
    discount = (subtotal * Decimal("0.05")).quantize(CENT, decimal.ROUND_HALF_UP) if "coupon" in request else Decimal("0.00")
    method = "pickup" if request["pickup"] else "express" if request["express"] else "standard"
    fee = {"pickup": Decimal("0.00"), "express": Decimal("9.90"), "standard": Decimal("4.90")}[method]
    exact_tax = (subtotal - discount + fee) * Decimal("0.19")
    tax = exact_tax.quantize(CENT, decimal.ROUND_HALF_UP)
    digest = int(hashlib.sha256(request["ref"].encode()).hexdigest(), 16)
    customer = request["customer"]
    return {
        "ref": request["ref"], "customer": customer, "name": NAMES[customer % len(NAMES)], "vip": customer % 3 == 0,
        "email": f"customer{customer}@mail.example", "lines": lines, "subtotal": subtotal, "discount": discount, "method": method,
        "fee": fee, "tax": tax, "total": subtotal - discount + fee + tax, "weight": sum(line["weight"] for line in lines),
        "express": request["express"], "coupon": request.get("coupon"), "deliver_by": request["deliver_by"], "gift": request["gift"],
        "risk": (digest % 9000 + 500) / 10000 + 1 / 3e4,
        "tags": sorted({f"zone-{customer % 7}", f"size-{min(len(lines), 9)}", f"via-{method}", "vip" if customer % 3 == 0 else "regular",
                        f"season-{digest % 4}"})}


class Orders:
    """The orders of one side by id, each as facts with what was drawn for it."""

    def __init__(self, draws):
        self.draws, self.by_id = draws, {}

    def new_ids(self, order):
        return {"id": next(self.draws.orders), "lines": [next(self.draws.lines) for _ in order["lines"]], "at": now()}

    def keep(self, order, ids, payment, reservations):
        self.by_id[ids["id"]] = {**order, "ids": ids, "payment": payment, "reservations": reservations}
        return self.by_id[ids["id"]]


# --- replies: (status, headers, document) and the bytes of a document ------------------------------------------------------
def created(order, draws):
    return 201, {"content-type": "application/json", "location": f"/orders/{order['ids']['id']}", "cache-control": "no-store"}, document(order, draws)


def document(order, draws):
    ids = order["ids"]
    lines = [{"id": line_id, **{key: line[key] for key in ("sku", "qty", "price", "total")}, "reservation": reservation}
             for line_id, line, reservation in zip(ids["lines"], order["lines"], order["reservations"])]
    out = {
        "id": ids["id"], "ref": order["ref"], "status": "confirmed", "express": order["express"], "currency": "EUR", "item_count": len(lines),
        "customer": {"id": order["customer"], "name": order["name"], "vip": order["vip"]}, "lines": lines, "subtotal": order["subtotal"],
        "discount": order["discount"], "shipping": {"method": order["method"], "fee": order["fee"]}, "tax": order["tax"],
        "total": order["total"], "weight": order["weight"], "gift": None, "history": ["received", "priced", "reserved", "charged", "confirmed"],
        "payment": {"id": order["payment"], "amount": order["total"]}, "deliver_by": order["deliver_by"], "tags": draws.shuffled(order["tags"]),
        "risk_score": draws.jitter(order["risk"]), "created_at": ids["at"], "trace_id": draws.hex(32),
        "message": f"Order {ids['id']} for customer {order['customer']}: {len(lines)} items",
        "links": {"self": f"/orders/{ids['id']}", "invoice": f"https://shop.example/invoices/INV-{ids['id']}.pdf"}}
    if order["coupon"]:
        out["coupon"] = order["coupon"]
    return out


def refused(status, code, message, draws):
    return status, {"content-type": "application/json"}, {"error": {"code": code, "message": message}, "at": now(), "trace_id": draws.hex(32)}


def shown(order, draws):
    return 200, {"content-type": "application/json"}, {**document(order, draws), "read_at": now()}


def receipt(order, draws):
    """A document of the page: its lines."""
    lines = ["SHOP RECEIPT", f"Order {order['ids']['id']} for {order['name']} (customer {order['customer']})"]
    lines += [f"{line['sku']}  {line['qty']} x {line['price']} = {line['total']}" for line in order["lines"]]
    lines += [f"Shipping {order['method']} {order['fee']}", f"Tax 19 % {order['tax']}", f"Total {order['total']} EUR",
              f"Deliver by {order['deliver_by']}", f"trace {draws.hex(32)}",
              f"generated {now()} in {draws.random.randint(2, 90)} ms on host web-{draws.hex(4)}"]
    return 200, {"content-type": "text/plain; charset=utf-8"}, lines


def exported(order, draws):
    """A document of the table: its rows, the names of the columns first."""
    at = now()
    rows = [[str(order["ids"]["id"]), line["sku"], str(line["qty"]), str(line["price"]), str(line["total"]), draws.hex(32), at] for line in order["lines"]]
    return 200, {"content-type": "text/csv; charset=utf-8"}, [["order_id", "sku", "qty", "price", "total", "trace", "exported_at"]] + draws.shuffled(rows)


def invoiced(order, draws):
    """A document of the invoice: nested [name, attributes, children or text]."""
    items = [["item", {"sku": line["sku"], "qty": str(line["qty"])}, [["price", {}, str(line["price"])], ["sum", {}, str(line["total"])]]]
             for line in order["lines"]]
    root = ["invoice", {"id": f"INV-{order['ids']['id']}", "printed": now(), "trace": draws.hex(32)},
            [["customer", {"id": str(order["customer"])}, order["name"]], *items, ["tax", {"rate": "19"}, str(order["tax"])],
             ["total", {"currency": "EUR"}, str(order["total"])], ["tags", {}, [["tag", {}, tag] for tag in draws.shuffled(order["tags"])]]]]
    return 200, {"content-type": "application/xml"}, root


def cancelled(order, refund, draws):
    return 200, {"content-type": "application/x-www-form-urlencoded"}, {
        "id": str(order["ids"]["id"]), "status": "cancelled", "refund": str(order["total"]), "refund_id": refund, "by": order["email"],
        "cancelled_at": now(), "trace": draws.hex(32)}


def xml_text(node):
    name, attributes, content = node
    inner = content if isinstance(content, str) else "".join(map(xml_text, content))
    return f"<{name}{''.join(f' {key}={chr(34)}{value}{chr(34)}' for key, value in attributes.items())}>{inner}</{name}>"


def body_bytes(headers, doc):
    kind = headers["content-type"].split(";")[0]
    if kind == "text/plain":
        text = "\n".join(doc) + "\n"
    elif kind == "text/csv":
        text = "".join(",".join(row) + "\r\n" for row in doc)
    elif kind == "application/xml":
        text = '<?xml version="1.0" encoding="UTF-8"?>' + xml_text(doc)
    elif kind == "application/x-www-form-urlencoded":
        text = urllib.parse.urlencode(doc)
    else:
        text = dumps(doc)
    return text.encode()


VIEWS = {"get": shown, "page": receipt, "csv": exported, "xml": invoiced}
