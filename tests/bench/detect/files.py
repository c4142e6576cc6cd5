"""The flag files of the process under test: one route for each shape without a defect (`clean-SHAPE`) and one for each defect."""
import json, textwrap

SHAPES = {  # method, the path behind the route's name, the workflow
    "create": ("POST", "/orders", "create"), "get": ("GET", "/orders/{id}", "view"), "cancel": ("POST", "/orders/{id}/cancel", "cancel"),
    "page": ("GET", "/orders/{id}/page", "view"), "csv": ("GET", "/orders/{id}/csv", "view"), "xml": ("GET", "/orders/{id}/xml", "view"),
    "family": ("POST", "/orders", "create"), "follow": ("GET", "/orders/{id}", "follow")}

RESPOND = """\
respond:
  status: "${int(steps.render.headers['x-reply-status'])}"
  headers:
    content-type: "${steps.render.headers['x-reply-content-type']}"
    location: "${default(steps.render.headers['x-reply-location'], null)}"
    cache-control: "${default(steps.render.headers['x-reply-cache-control'], null)}"
  body: "${steps.render.output}"
"""
KEY = "key: \"${request.headers['x-bench']}\", path: \"${request.path}\""


def create(name, rehearse="legacy", charges="POST ${services.bank}/charges", mails="POST ${services.mail}/orders/${item.order}/mails", each=False,
           again=False, charge_needs="plan, reserve", mail_needs="plan, charge"):
    """A workflow that creates an order. `each`: one charge for each that is planned. `again`: a second step that charges."""
    declared = rehearse != "legacy"
    by_plan = each or declared or "charge" not in mail_needs  # whether the card is declined is known before the bank says so
    declined = "steps.plan.output.charge.exists(c, c.customer > 8999)" if by_plan else "!steps.charge.skipped && steps.charge.status == 402"
    output = "steps.charge.output[0]" if each else "steps.charge.output"
    skipped = "size(steps.charge.output) == 0" if each else "steps.charge.skipped"
    second = f"""\
  charge_again:
    needs: [charge]
    if: "${{size(steps.plan.output.charge_again) > 0}}"
    call: {charges}
    body: "${{steps.plan.output.charge_again[0]}}"
    rehearse: {{}}
"""
    return f"""\
workflow: {name}
steps:
  plan:
    call: POST ${{services.next}}/plan
    effect: read
    body: {{ {KEY}, body: "${{request.body}}" }}
  reserve:
    for_each: "${{steps.plan.output.reserve}}"
    call: POST ${{services.stock}}/reservations
    body: "${{item}}"
    rehearse: legacy
  charge:
    needs: [{charge_needs}]
    needs_any: true
    {'for_each: "${steps.plan.output.charge}"' if each else 'if: "${size(steps.plan.output.charge) > 0}"'}
    call: {charges}
    body: "${{{'item' if each else 'steps.plan.output.charge[0]'}}}"
    accept: [2xx, 402]
    rehearse: {rehearse}
{second if again else ""}\
  mail:
    needs: [{mail_needs}]
    needs_any: true
    for_each: "${{{declined} ? [] : steps.plan.output.mails}}"
    call: {mails}
    body: {{ to: "${{item.to}}", subject: "${{item.subject}}", template: "${{item.template}}", trace: "${{item.trace}}" }}
    rehearse: {{}}
  render:
    needs: [plan, reserve, charge]
    needs_any: true
    call: POST ${{services.next}}/render
    effect: read
    body:
      key: "${{steps.plan.output.key}}"
      cancel: false
      declined: "${{{declined}}}"
      payment: "${{{skipped} || ({declined}) ? null : {output}.id}}"
      reservations: "${{steps.reserve.output.map(one, one.id)}}"
{RESPOND}"""


CANCEL = f"""\
workflow: cancel
steps:
  plan:
    call: POST ${{services.next}}/plan
    effect: read
    body: {{ {KEY}, body: null }}
  refund:
    if: "${{!steps.plan.output.refused}}"
    call: POST ${{services.bank}}/refunds
    form:
      order: "${{steps.plan.output.refund.order}}"
      amount: "${{steps.plan.output.refund.amount}}"
      payment: "${{steps.plan.output.refund.payment}}"
      reason: "${{steps.plan.output.refund.reason}}"
    rehearse: legacy
  mail:
    needs: [plan, refund]
    needs_any: true
    for_each: "${{steps.plan.output.mails}}"
    call: POST ${{services.mail}}/orders/${{item.order}}/mails
    body: {{ to: "${{item.to}}", subject: "${{item.subject}}", template: "${{item.template}}", trace: "${{item.trace}}" }}
    rehearse: {{}}
  render:
    needs: [plan, refund]
    needs_any: true
    call: POST ${{services.next}}/render
    effect: read
    body: {{ key: "${{steps.plan.output.key}}", cancel: true, refund: "${{steps.refund.skipped ? null : steps.refund.output.id}}" }}
{RESPOND}"""


def view(name, number):
    return f"""\
workflow: {name}
steps:
  render:
    call: POST ${{services.next}}/view
    effect: read
    body: {{ {KEY}, id: {number} }}
{RESPOND}"""


DECLARED = "{ id: \"${default(legacy.body.payment.id, null)}\" }"
WORKFLOWS = {text.split()[1]: text for text in [
    create("create"), CANCEL, view("view", "null"), view("follow", '"${instance.id}"'),
    create("create-charge-each", each=True), create("create-charge-again", again=True),
    create("create-charge-put", charges="PUT ${services.bank}/charges"), create("create-charge-path", charges="POST ${services.bank}/payments"),
    create("create-declared-again", rehearse=DECLARED, again=True), create("create-declared", rehearse=DECLARED),
    create("create-declared-put", rehearse=DECLARED, charges="PUT ${services.bank}/charges"),
    create("create-declared-path", rehearse=DECLARED, charges="POST ${services.bank}/payments"),
    create("create-mail-put", mails="PUT ${services.mail}/orders/${item.order}/mails"),
    create("create-mail-path", mails="POST ${services.mail}/customers/${item.order}/mails"),
    create("create-mail-first", charge_needs="plan, reserve, mail", mail_needs="plan, reserve"),
    create("create-unordered", mail_needs="plan, reserve")]}

# What `--suggest` starts with: texts are kept as lines, not as digests, else it has nothing to read. No noise is named.
FIRST_RULES = {"page": {"text": {}}}

# Rules that a careful person writes, who knows the shop.
RECEIPT_TEXT = {"ignore": ["^generated .* in \\d+ ms on host web-[0-9a-f]+$"], "ids": ["^trace ([0-9a-f]+)$"]}
CALL_RULES = {
    "reserve": {"ids": ["$.order"], "tolerance": {"$.requested_at": "10s"}},
    "charge": {"ids": ["$.order", "$.nonce"], "tolerance": {"$.requested_at": "10s"}}, "mail": {"ids": ["$.trace"]}}
HEADERS = ["content-type", "location", "cache-control"]
HAND_RULES = {
    "create": {
        "headers": HEADERS, "numbers": {"form": "strict"}, "unordered": {"$.tags": "set"}, "effects": CALL_RULES,
        "ids": ["$.id", "$.lines[*].id", "$.trace_id", {"header.location": "/orders/{id}"}],
        "tolerance": {"$.created_at": "10s", "$.at": "10s", "$.risk_score": 1e-6}},
    "get": {
        "headers": HEADERS, "numbers": {"form": "strict"}, "unordered": {"$.tags": "set"}, "ids": ["$.trace_id"],
        "tolerance": {"$.read_at": "10s", "$.at": "10s", "$.risk_score": 1e-6}},
    "cancel": {"ids": ["$.trace", "$.trace_id"], "tolerance": {"$.cancelled_at": "10s", "$.at": "10s"}, "effects": {"mail": {"ids": ["$.trace"]}}},
    "page": {"text": RECEIPT_TEXT, "ids": ["$.trace_id"], "tolerance": {"$.at": "10s"}},
    "csv": {"ids": ["$.rows[*].trace", "$.trace_id"], "tolerance": {"$.rows[*].exported_at": "10s", "$.at": "10s"}, "unordered": {"$.rows": "sku"}},
    "xml": {"ids": ["$.invoice['@trace']", "$.trace_id"], "tolerance": {"$.invoice['@printed']": "10s", "$.at": "10s"},
            "unordered": {"$.invoice.tags[*].tag": "set"}}}
HAND_RULES["family"] = HAND_RULES["create"]
HAND_RULES["follow"] = {**HAND_RULES["get"], "ids": ["$.id", "$.lines[*].id", "$.trace_id"], "tolerance": {**HAND_RULES["get"]["tolerance"], "$.created_at": "10s"}}


def routes(defects):
    """(name of the route, shape, workflow) of the clean routes and of those of the defects; a family has two."""
    out = [(f"clean-{shape}", shape, workflow) for shape, (_, _, workflow) in SHAPES.items() if shape != "follow"]
    out += [(defect.name, defect.shape, defect.workflow or SHAPES[defect.shape][2]) for defect in defects]
    return out + [(f"{name}.follow", "follow", "follow") for name, shape, _ in out if shape == "family"]


class Flags:
    """The folder with the files; `write` puts other rules into force at the next reload."""

    def __init__(self, folder, services_port, ports):
        self.folder = folder
        for name in ("routes", "workflows"):
            (folder / name).mkdir(parents=True)
        base = f"http://127.0.0.1:{services_port}"
        (folder / "pointsman.yaml").write_text(
            f"listen: 127.0.0.1:{ports['proxy']}\nadmin: {{ listen: 127.0.0.1:{ports['admin']} }}\n"
            f"egress: {{ listen: 127.0.0.1:{ports['egress']}, window: 400ms }}\n"
            f"services: {{ shop: '{base}', bank: '{base}/bank', stock: '{base}/stock', mail: '{base}/mail', next: '{base}/next' }}\n"
            f"default_legacy: shop\nstore: 'sqlite:{folder.parent}/bench.db'\nlimits: {{ move_answer_ms: 60000 }}\n")
        for name, text in WORKFLOWS.items():
            (folder / f"workflows/{name}.yaml").write_text(text)

    def write(self, rules, defects):
        """`rules` has the text of `compare:` (or a map of it) for each shape."""
        out = ["routes:"]
        for name, shape, workflow in routes(defects):
            method, path, _ = SHAPES[shape]
            dark = shape in ("family", "follow")
            prefix = name.removesuffix(".follow")
            out.append(f"- id: {route_id(name)}\n  match: {{ method: {method}, path: '/{prefix}{path}' }}\n  legacy: shop\n  workflow: {workflow}")
            out.append("  state: dark\n  force: { reason: bench }" if dark else "  state: shadow")
            if dark:
                out.append("  instance: { creates: $.id }" if shape == "family" else f"  instance: {{ follows: {route_id(prefix)}, key: path.id }}")
            if rule := rules.get(shape):
                text = rule if isinstance(rule, str) else f"compare: {json.dumps(rule)}"
                out.append(textwrap.indent(text.rstrip(), "  "))
        (self.folder / "routes/all.yaml").write_text("\n".join(out) + "\n")


def route_id(name):
    return name.replace("_", "-")
