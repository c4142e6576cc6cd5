"""The planted defects: what each one changes on the engine's side (or on legacy's), and what a right report names.

`at` says where it is planted: `doc` in the document of the engine's reply, `wire` in its status, headers and bytes, `plan`
in the calls that the engine would make, `workflow` in its steps, `read` in what the engine's service reads, `ids` in the
ids that it draws, `legacy` in legacy. `kinds` and `path` (a pattern) are those of the difference that a right report has. The pairs that have
the defect are those whose reply or plan it changed.

Of two orders with one id (`order_id_reused`) the pair that is compared second differs, which need not be the second order;
any pair of the route counts as found. The id may be that of an order made under the rules before.
"""
import gzip, re
from dataclasses import dataclass
from decimal import Decimal
from typing import Callable

from shop import CENT, SKUS, Twice


@dataclass
class Defect:
    name: str
    shape: str
    at: str
    kinds: str
    path: str
    change: Callable = None
    workflow: str = None

    def is_named_by(self, difference):
        return difference["kind"] in self.kinds.split() and re.fullmatch(self.path, difference["path"]) is not None


def put(*keys, to):
    """Replaces the value at these keys by `to(value)`."""
    def change(doc, order, memo):
        at = doc
        for key in keys[:-1]:
            at = at[key]
        if not isinstance(at, dict) or keys[-1] in at:
            at[keys[-1]] = to(at[keys[-1]])
    return change


def drop(*keys):
    def change(doc, order, memo):
        at = doc
        for key in keys[:-1]:
            at = at[key]
        if isinstance(at, dict):
            at.pop(keys[-1], None)
        elif len(at) > 1:
            del at[keys[-1]]
    return change


def only(when, change):
    """The change, for orders of one kind only."""
    return lambda doc, order, memo: change(doc, order, memo) if order and when(order) else None


def ok(change):
    """The change, in replies that are no refusal."""
    return lambda doc, order, memo: None if "error" in doc else change(doc, order, memo)


def refusal(change):
    return lambda doc, order, memo: change(doc, order, memo) if "error" in doc else None


def shift_hours(text, hours=1):
    return re.sub(r"T(\d\d)", lambda m: f"T{(int(m.group(1)) + hours) % 24:02d}", text)


def rename_key(doc, order, memo):
    doc[Twice("currency")] = "USD"


def reverse_history(doc, order, memo):
    doc["history"][1], doc["history"][2] = doc["history"][2], doc["history"][1]


def duplicate_line(doc, order, memo):
    doc["lines"].append(doc["lines"][-1])


def reuse_line_id(doc, order, memo):
    if len(doc["lines"]) > 1:
        doc["lines"][1]["id"] = doc["lines"][0]["id"]


def swap_lines_ids(doc, order, memo):
    """Each line has the reservation of another one."""
    lines = doc["lines"]
    if len(lines) > 1:
        lines[0]["reservation"], lines[1]["reservation"] = lines[1]["reservation"], lines[0]["reservation"]


def other_order(keys, text):
    """Names an order that the engine made before."""
    return lambda doc, order, memo: put(*keys, to=lambda _: text.format(memo["other"]))(doc, order, memo)


def cut_lines(doc, order, memo):
    del doc["lines"][20:]


def wire(status=None, headers=None, body=None, when=lambda status: status < 400):
    """Changes the reply as it is sent; a header of None is left out."""
    def change(reply, order, memo):
        if when(reply["status"]):
            reply["status"] = status or reply["status"]
            for name, value in (headers or {}).items():
                reply["headers"].pop(name, None)
                if value is not None:
                    reply["headers"][name] = value.format(memo.get("other"))
            if body:
                reply["body"] = body(reply["body"])
    return change


def is_declined(plan):
    """Whether the bank will refuse the charge, so that no mail is sent."""
    return bool(plan.get("charge")) and plan["charge"][0]["customer"] > 8999


def mail(**fields):
    def change(plan, order, memo):
        for one in [] if is_declined(plan) else plan["mails"]:
            one.update({key: value(one, memo) for key, value in fields.items()})
    return change


def charge(**fields):
    def change(plan, order, memo):
        for one in plan["charge"]:
            one.update({key: value(one, memo) for key, value in fields.items()})
    return change


def charge_again(plan, order, memo):
    plan["charge_again"] = plan["charge"][:1]


def no_mail(plan, order, memo):
    if not is_declined(plan):
        plan["mails"] = []


def extra_mail(plan, order, memo):
    if is_declined(plan):
        return
    plan["mails"] += [{**one, "to": "accounting@shop.example"} for one in plan["mails"][:1]]


def mail_on_refusal(plan, order, memo):
    if plan["refused"]:
        plan["mails"] = [{"order": plan["id"], "to": "customer@mail.example", "subject": "Your order", "template": "sorry", "trace": "0" * 32}]


def reserve(change_items):
    def change(plan, order, memo):
        if plan["reserve"]:
            plan["reserve"] = change_items([dict(item) for item in plan["reserve"]])
    return change


def more_qty(items):
    return [{**items[0], "qty": items[0]["qty"] + 1}, *items[1:]]


def line_of(pattern, to):
    """Changes the line of a page that fits the pattern; None drops it."""
    def change(lines, order, memo):
        for n, line in enumerate(lines):
            if re.match(pattern, line):
                if to is None:
                    del lines[n]
                else:
                    lines[n] = to(line)
                return
    return change


def cell(column, to):
    """Changes one cell of the row with the smallest article number."""
    def change(rows, order, memo):
        if order:
            row = min(rows[1:], key=lambda row: row[1])
            row[column] = to(row[column])
    return change


def drop_column(rows, order, memo):
    for row in rows if order else []:
        del row[3]


def rename_column(rows, order, memo):
    if order:
        rows[0][3] = "unit_price"


def drop_row(rows, order, memo):
    if order:
        rows.remove(max(rows[1:], key=lambda row: row[1]))


def shift_cells(rows, order, memo):
    """The quantities stand in the rows of other articles."""
    if order and len(rows) > 2:
        quantities = [row[2] for row in rows[1:]]
        for row, qty in zip(rows[1:], quantities[1:] + quantities[:1]):
            row[2] = qty


def child(name, change_node):
    """Changes the first child of an invoice with this name."""
    def change(root, order, memo):
        if order:
            for node in root[2]:
                if node[0] == name:
                    return change_node(node, root[2])
    return change


def set_attribute(name, to):
    return lambda node, siblings: node[1].update({name: to(node[1][name])})


def set_text(to):
    return lambda node, siblings: node.__setitem__(2, to(node[2]))


def swap_children(node, siblings):
    tax, total = (next(n for n, one in enumerate(siblings) if one[0] == name) for name in ("tax", "total"))
    siblings[tax], siblings[total] = siblings[total], siblings[tax]


cents = lambda n: lambda value: value + n * CENT  # noqa: E731
is_large, is_gift = lambda order: len(order["lines"]) >= 20, lambda order: order["gift"]
is_form = lambda change: lambda doc, order, memo: change(doc, order, memo) if order else None  # noqa: E731

DEFECTS = [
    # a JSON reply to a create
    Defect("value", "create", "doc", "value", r"\$\.currency", ok(put("currency", to=lambda _: "USD"))),
    Defect("rounding", "create", "doc", "value", r"\$\.tax", ok(put("tax", to=cents(-1)))),
    Defect("last_item_missing", "create", "doc", "missing", r"\$\.lines\[\*\]", ok(drop("lines", -1))),
    Defect("field_missing", "create", "doc", "missing", r"\$\.shipping\.method", ok(drop("shipping", "method"))),
    Defect("field_extra", "create", "doc", "extra", r"\$\.debug", ok(lambda doc, order, memo: doc.update(debug=True))),
    Defect("null_for_absent", "create", "doc", "extra", r"\$\.coupon", ok(lambda doc, order, memo: doc.setdefault("coupon", None))),
    Defect("absent_for_null", "create", "doc", "missing", r"\$\.gift", ok(drop("gift"))),
    Defect("number_as_text", "create", "doc", "type", r"\$\.item_count", ok(put("item_count", to=str))),
    Defect("flag_as_text", "create", "doc", "type", r"\$\.customer\.vip", ok(put("customer", "vip", to=lambda v: str(v).lower()))),
    Defect("id_as_text", "create", "doc", "type", r"\$\.id", ok(put("id", to=str))),
    Defect("order_of_list", "create", "doc", "order", r"\$\.history(\[\*\])?", ok(reverse_history)),
    Defect("element_twice", "create", "doc", "extra", r"\$\.lines\[\*\]", ok(duplicate_line)),
    Defect("other_customer", "create", "doc", "value", r"\$\.customer\.id", ok(put("customer", "id", to=lambda v: v + 1))),
    Defect("link_to_other_order", "create", "doc", "value", r"\$\.links\.self", ok(other_order(("links", "self"), "/orders/{}"))),
    Defect("text_names_other_order", "create", "doc", "value", r"\$\.message",
           ok(lambda doc, order, memo: put("message", to=lambda v: re.sub(r"\d+", str(memo["other"]), v, count=1))(doc, order, memo))),
    Defect("file_of_other_order", "create", "doc", "value", r"\$\.links\.invoice",
           ok(other_order(("links", "invoice"), "https://shop.example/invoices/INV-{}.pdf"))),
    Defect("other_payment", "create", "doc", "value", r"\$\.payment\.id", ok(put("payment", "id", to=lambda v: "pay_" + v[4:][::-1]))),
    Defect("reservations_swapped", "create", "doc", "value order", r"\$\.lines\[\*\]\.reservation", ok(swap_lines_ids)),
    Defect("line_id_twice", "create", "doc", "value", r"\$\.lines\[\*\]\.id", ok(reuse_line_id)),
    Defect("order_id_reused", "family", "ids", "value", r"\$\.id", None),
    Defect("form_of_number", "create", "doc", "value", r"\$\.weight", ok(put("weight", to=lambda v: Decimal(str(v).rstrip("0") if "." in str(v) else v)))),
    Defect("time_zone", "create", "doc", "value", r"\$\.deliver_by", ok(put("deliver_by", to=lambda v: v.replace("Z", "+02:00")))),
    Defect("time_shifted", "create", "doc", "value", r"\$\.deliver_by", ok(put("deliver_by", to=shift_hours))),
    Defect("time_of_now_shifted", "create", "doc", "value", r"\$\.created_at", ok(put("created_at", to=shift_hours))),
    Defect("time_without_zone", "create", "doc", "value", r"\$\.created_at", ok(put("created_at", to=lambda v: v.rstrip("Z")))),
    Defect("flag", "create", "doc", "value", r"\$\.express", ok(put("express", to=lambda v: not v))),
    Defect("tag_missing", "create", "doc", "missing", r"\$\.tags(\[\*\])?", ok(drop("tags", -1))),
    Defect("tag_wrong", "create", "doc", "value missing extra", r"\$\.tags(\[\*\])?", ok(put("tags", 0, to=lambda v: v + "x"))),
    Defect("jitter_too_large", "create", "doc", "value", r"\$\.risk_score", ok(put("risk_score", to=lambda v: v * 1.001))),
    Defect("trace_empty", "create", "doc", "value", r"\$\.trace_id", put("trace_id", to=lambda v: "")),
    Defect("key_twice", "create", "doc", "duplicate_key", r"\$\.currency", ok(rename_key)),
    Defect("status_of_class", "create", "wire", "status", "status", wire(status=200)),
    Defect("status", "create", "wire", "status", "status", wire(status=409)),
    Defect("header_missing", "create", "wire", "header", r"headers?\.location", wire(headers={"location": None})),
    Defect("header_wrong", "create", "wire", "header", r"headers?\.location", wire(headers={"location": "/orders/{}"})),
    Defect("header_not_listed", "create", "wire", "header", r"headers?\.cache-control", wire(headers={"cache-control": "max-age=60"})),
    Defect("content_type", "create", "wire", "header", r"headers?\.content-type", wire(headers={"content-type": "text/json"})),
    Defect("body_empty", "create", "wire", "value missing type", r"\$.*", wire(body=lambda body: b"")),
    Defect("body_truncated", "create", "wire", "type", r"body", wire(body=lambda body: body[:-20])),
    Defect("body_gzip_undeclared", "create", "wire", "type", r"body", wire(body=gzip.compress)),
    Defect("one_in_a_hundred", "create", "doc", "value", r"\$\.total", ok(only(is_gift, put("total", to=cents(100))))),
    Defect("express_only", "create", "doc", "value", r"\$\.shipping\.fee", ok(only(lambda order: order["express"], put("shipping", "fee", to=cents(10))))),
    Defect("large_only", "create", "doc", "missing", r"\$\.lines\[\*\]", ok(only(is_large, cut_lines))),
    Defect("with_coupon_only", "create", "doc", "value", r"\$\.discount", ok(only(lambda order: order["coupon"], put("discount", to=cents(1))))),
    Defect("error_body", "create", "doc", "value", r"\$\.error\.code", refusal(put("error", "code", to=lambda _: "bad_request"))),
    Defect("error_text", "create", "doc", "value", r"\$\.error\.message", refusal(put("error", "message", to=lambda v: v + "."))),
    Defect("error_status", "create", "wire", "status", "status", wire(status=400, when=lambda status: status == 422)),
    Defect("declined_is_created", "create", "wire", "status", "status", wire(status=201, when=lambda status: status == 402)),
    # the calls of a create
    Defect("charge_amount", "create", "plan", "effect_differs", r"effects\.charge\.body\.amount", charge(amount=lambda one, memo: one["amount"] + CENT)),
    Defect("charge_amount_as_text", "create", "plan", "effect_differs", r"effects\.charge\.body\.amount", charge(amount=lambda one, memo: str(one["amount"]))),
    Defect("charge_currency", "create", "plan", "effect_differs", r"effects\.charge\.body\.currency", charge(currency=lambda one, memo: "USD")),
    Defect("charge_for_other_order", "create", "plan", "effect_differs", r"effects\.charge\.body\.order", charge(order=lambda one, memo: memo["other"])),
    Defect("charge_missing", "create", "plan", "effect_missing", r"effects\.bank POST /bank/charges", lambda plan, order, memo: plan.update(charge=[])),
    Defect("charge_twice_each", "create", "plan", "effect_doubled", r"effects\.charge",
           lambda plan, order, memo: plan["charge"].extend(plan["charge"][:1]), "create-charge-each"),
    Defect("charge_twice_step", "create", "plan", "effect_doubled effect_extra", r"effects\.charge(_again)?", charge_again, "create-charge-again"),
    Defect("charge_twice_declared", "create", "plan", "effect_doubled effect_extra", r"effects\.charge(_again)?", charge_again, "create-declared-again"),
    Defect("charge_missing_declared", "create", "plan", "effect_missing", r"effects\.bank POST /bank/charges",
           lambda plan, order, memo: plan.update(charge=[]), "create-declared"),
    Defect("charge_method", "create", "workflow", "effect_missing effect_extra", r"effects\.(charge|bank POST /bank/charges)", None, "create-charge-put"),
    Defect("charge_method_declared", "create", "workflow", "effect_missing effect_extra", r"effects\.(charge|bank POST /bank/charges)", None, "create-declared-put"),
    Defect("charge_path", "create", "workflow", "effect_missing effect_extra", r"effects\.(charge|bank POST /bank/charges)", None, "create-charge-path"),
    Defect("charge_path_declared", "create", "workflow", "effect_missing effect_extra", r"effects\.(charge|bank POST /bank/charges)", None, "create-declared-path"),
    Defect("legacy_charges_twice", "create", "legacy", "effect_doubled", r"effects\..*charge.*"),
    Defect("mail_method", "create", "workflow", "effect_missing effect_extra", r"effects\.mail.*", None, "create-mail-put"),
    Defect("mail_path", "create", "workflow", "effect_missing effect_extra", r"effects\.mail.*", None, "create-mail-path"),
    Defect("mail_extra", "create", "plan", "effect_extra", r"effects\.mail", extra_mail),
    Defect("mail_missing", "create", "plan", "effect_missing", r"effects\.mail.*", no_mail),
    Defect("mail_to_wrong_address", "create", "plan", "effect_differs", r"effects\.mail\.body\.to", mail(to=lambda one, memo: "x" + one["to"])),
    Defect("mail_about_other_order", "create", "plan", "effect_differs", r"effects\.mail\.body\.subject",
           mail(subject=lambda one, memo: f"Order {memo['other']} confirmed")),
    Defect("mail_to_path_of_other_order", "create", "plan", "effect_differs", r"effects\.mail\.path.*", mail(order=lambda one, memo: memo["other"])),
    Defect("mail_on_refusal", "create", "plan", "effect_extra", r"effects\.mail", mail_on_refusal),
    Defect("item_not_reserved", "create", "plan", "effect_missing", r"effects\..*reserv.*", reserve(lambda items: items[:-1] if len(items) > 1 else items)),
    Defect("quantity_reserved", "create", "plan", "effect_differs", r"effects\.reserve\.body\.qty", reserve(more_qty)),
    Defect("mail_before_charge", "create", "workflow", "effect_order", r"effects\..*", workflow="create-mail-first"),
    Defect("mail_and_charge_at_once", "create", "workflow", "effect_order", r"effects\..*", workflow="create-unordered"),
    Defect("legacy_mails_first", "create", "legacy", "effect_order", r"effects\..*"),
    # a JSON reply to a read
    Defect("read_other_order", "get", "read", "value", r"\$\.(id|ref)"),
    Defect("read_status", "get", "doc", "value", r"\$\.status", ok(put("status", to=lambda _: "pending"))),
    Defect("read_line_total", "get", "doc", "value", r"\$\.lines\[\*\]\.total", ok(put("lines", -1, to=lambda line: {**line, "total": line["total"] + CENT}))),
    Defect("read_not_found", "get", "wire", "status", "status", wire(status=404, when=lambda status: status == 200)),
    Defect("read_finds_nothing", "get", "wire", "status", "status", wire(status=200, when=lambda status: status == 404)),
    # a form: the reply to a cancel, and its calls
    Defect("form_field", "cancel", "doc", "value", r"\$\.refund", is_form(put("refund", to=lambda v: str(Decimal(v) + CENT)))),
    Defect("form_field_missing", "cancel", "doc", "missing", r"\$\.status", is_form(drop("status"))),
    Defect("refund_amount", "cancel", "plan", "effect_differs", r"effects\.refund\.body\.amount",
           lambda plan, order, memo: plan["refund"].update(amount=str(Decimal(plan["refund"]["amount"]) + 1)) if order else None),
    Defect("refund_of_other_order", "cancel", "plan", "effect_differs", r"effects\.refund\.body\.order",
           lambda plan, order, memo: plan["refund"].update(order=str(int(plan["refund"]["order"]) + 1)) if order else None),
    # a page of text
    Defect("text_line", "page", "doc", "value", r"text", line_of("Total", lambda line: re.sub(r"\d+", lambda m: str(int(m.group()) + 1), line, count=1))),
    Defect("text_line_missing", "page", "doc", "value missing", r"text", line_of("Shipping", None)),
    Defect("text_line_extra", "page", "doc", "value extra", r"text", line_of("Shipping", lambda line: line + "\nHave a nice day")),
    Defect("text_lines_swapped", "page", "doc", "value missing extra order", r"text", lambda lines, order, memo: lines.insert(-3, lines.pop(-5)) if order else None),
    Defect("charset", "page", "wire", "header", r"headers?\.content-type", wire(headers={"content-type": "text/plain; charset=iso-8859-1"})),
    Defect("encoding", "page", "wire", "value", r"text", wire(body=lambda body: body.decode("latin-1").encode())),
    # a table
    Defect("csv_cell", "csv", "doc", "value", r"\$\.rows\[\*\]\.total", cell(4, lambda v: str(Decimal(v) + CENT))),
    Defect("csv_column_missing", "csv", "doc", "missing value", r"\$\.(columns.*|rows\[\*\]\.price)", drop_column),
    Defect("csv_column_renamed", "csv", "doc", "missing extra value", r"\$\.(columns.*|rows\[\*\]\.(price|unit_price))", rename_column),
    Defect("csv_row_missing", "csv", "doc", "missing", r"\$\.rows\[\*\]", drop_row),
    Defect("csv_cells_shifted", "csv", "doc", "value", r"\$\.rows\[\*\]\.qty", shift_cells),
    # an XML document
    Defect("xml_attribute", "xml", "doc", "value", r"\$\.invoice\.total.*currency.*", child("total", set_attribute("currency", lambda _: "USD"))),
    Defect("xml_text", "xml", "doc", "value", r"\$\.invoice\.tax.*", child("tax", set_text(lambda text: str(Decimal(text) + CENT)))),
    Defect("xml_element_missing", "xml", "doc", "missing", r"\$\.invoice\.customer.*", child("customer", lambda node, siblings: siblings.remove(node))),
    Defect("xml_order", "xml", "doc", "value order", r"\$\.invoice.*", child("tax", swap_children)),
    Defect("xml_item", "xml", "doc", "value", r"\$\.invoice\.item\[\*\].*qty.*", child("item", set_attribute("qty", lambda qty: str(int(qty) + 1)))),
    # a family in `dark`: the engine's order is read under its own id
    Defect("follow_other_order", "family", "read", "value", r"\$\.(id|ref|message|links.*)"),
    Defect("follow_status", "family", "doc", "value", r"\$\.status", ok(lambda doc, order, memo: doc.update(status="open") if "read_at" in doc else None)),
]
assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) and len(SKUS) == 50
BY_NAME = {defect.name: defect for defect in DEFECTS}
