"""The other ways to compare, on the same pairs: deep-equal of parsed bodies, and Diffy's method."""
import collections, json


def lifted(reply):
    """A reply as both methods see it: the body parsed where it is JSON, else as text."""
    status, headers, body = reply
    text = body.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    return {str(status): {"content": body, "headers": {name: headers[name] for name in headers}}}


def differing_paths(left, right, path=()):
    """The paths at which two parsed replies differ; elements of arrays are named `[*]`."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in {**left, **right}:
            if key in left and key in right:
                yield from differing_paths(left[key], right[key], path + (key,))
            else:
                yield path + (key,)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for a, b in zip(left, right):
            yield from differing_paths(a, b, path + ("[*]",))
    elif type(left) is not type(right) and not {type(left), type(right)} <= {int, float} or left != right:
        yield path


class DeepEqual:
    """An alarm for each pair that differs; with `learn`, except at paths that differed in the warm-up, which are ignored."""

    def __init__(self):
        self.noise = collections.defaultdict(set)

    def learn(self, shape, primary, candidate):
        self.noise[shape].update(differing_paths(lifted(primary), lifted(candidate)))

    def alarms(self, shape, primary, candidate):
        """(whether they differ, whether they differ where the warm-up did not)."""
        paths = set(differing_paths(lifted(primary), lifted(candidate)))
        return bool(paths), bool(paths - self.noise[shape])


class Diffy:
    """opendiffy/diffy: for each field, how often candidate and primary differ against how often two instances of legacy do.

    A field is reported while it differs more often than its noise, by more than 20 % of the sum of both (the option
    `threshold.relative`) and by more than 0.03 % of the requests (`threshold.absolute`). Its kinds of differences of a list:
    the order (equal elements), the size (lists of different lengths), or those of the elements, without their indexes.
    """

    def __init__(self):
        self.pairs, self.raw, self.noise = 0, collections.Counter(), collections.Counter()

    def add(self, primary, secondary, candidate):
        """Counts a request; returns the fields that are reported now."""
        primary, secondary, candidate = map(lifted, (primary, secondary, candidate))
        self.pairs += 1
        self.raw.update(set(self.fields(primary, candidate)))
        self.noise.update(set(self.fields(primary, secondary)))
        return self.reported()

    def reported(self):
        def is_reported(raw, noise):
            return raw > noise and (raw - noise) / (raw + noise) * 100 > 20 and (raw - noise) / self.pairs * 100 > 0.03
        return {field for field, raw in self.raw.items() if is_reported(raw, self.noise[field])}

    def fields(self, left, right):
        if type(left) is type(right) and left == right:
            return
        if isinstance(left, dict) and isinstance(right, dict):
            for key in {**left, **right}:
                if key not in right:
                    yield f"{key}.MissingField"
                elif key not in left:
                    yield f"{key}.ExtraField"
                else:
                    for field in self.fields(left[key], right[key]):
                        yield f"{key}.{field}"
        elif isinstance(left, list) and isinstance(right, list):
            keys = [sorted(json.dumps(item, sort_keys=True) for item in items) for items in (left, right)]
            if keys[0] == keys[1]:
                yield "OrderingDifference"
            elif len(left) == len(right):
                for a, b in zip(left, right):
                    yield from self.fields(a, b)
            else:
                yield "SeqSizeDifference"
        elif type(left) is not type(right):
            yield "TypeDifference"
        else:
            yield "PrimitiveDifference"
