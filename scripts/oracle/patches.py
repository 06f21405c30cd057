"""Random strategic merge patches: python3 patches.py N SEED."""
import json, random, sys

count, seed = int(sys.argv[1]), int(sys.argv[2])
R = random.Random(seed)


def maybe(value, p=0.5):
    return value() if R.random() < p else None


def some(xs):
    ys = [x for x in xs if R.random() < 0.5]
    R.shuffle(ys)
    return ys


def clean(d):
    return {k: v for k, v in d.items() if v is not None}


def env(name):
    return clean({"name": name, "value": maybe(lambda: R.choice("12"), 0.8)})


def port(n):
    return clean({"containerPort": n, "protocol": maybe(lambda: R.choice(["TCP", "UDP"])), "name": maybe(lambda: "n%d" % n)})


def container(name):
    return clean({
        "name": name,
        "image": maybe(lambda: R.choice("ij"), 0.7),
        "args": maybe(lambda: some("xyz")),
        "env": maybe(lambda: [env(e) for e in some("XYZ")]),
        "ports": maybe(lambda: [port(p) for p in some([80, 81, 82])], 0.3),
        "securityContext": maybe(lambda: clean({"runAsUser": maybe(lambda: 1), "runAsGroup": maybe(lambda: 2)}), 0.3),
    })


def volume(name):
    return R.choice([{"name": name, "emptyDir": {}}, {"name": name, "configMap": {"name": "c"}}, {"name": name}])


def spec():
    return clean({
        "containers": [container(n) for n in some("abcd")],
        "volumes": maybe(lambda: [volume(v) for v in some("vwx")]),
        "nodeSelector": maybe(lambda: {k: R.choice("12") for k in some("pq")}),
        "tolerations": maybe(lambda: [{"key": k} for k in some("kl")], 0.3),
        "securityContext": maybe(lambda: {"runAsUser": 1, "fsGroup": 3}, 0.3),
    })


def obj():
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": clean({
            "name": "x",
            "labels": maybe(lambda: {k: R.choice("12") for k in some("lmn")}),
            "finalizers": maybe(lambda: some(["f/a", "f/b", "f/c"])),
            "ownerReferences": maybe(lambda: [{"uid": u, "name": u} for u in some("uvw")]),
        }),
        "spec": clean({
            "replicas": maybe(lambda: 2),
            "strategy": maybe(lambda: R.choice([{"type": "Recreate"}, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}])),
            "template": {"spec": spec()},
        }),
    }


KEYS = {"containers": "name", "volumes": "name", "env": "name", "ports": "containerPort", "ownerReferences": "uid"}
PRIMITIVE = {"finalizers"}


def spoil(value, name=None):
    """Turns an object into a patch: directives, orders and nulls put in."""
    if isinstance(value, dict):
        out = {}
        for k, v in value.items():
            if R.random() < 0.15 and k not in ("name", "uid", "containerPort"):
                out[k] = None
                continue
            v = spoil(v, k)
            if k in KEYS and isinstance(v, list):
                key = KEYS[k]
                if R.random() < 0.3:
                    order = [{key: i[key]} for i in v if key in i and "$patch" not in i]
                    for extra in some([80, 81, 82] if k == "ports" else list("abcdvwxXYZu")):
                        if all(extra != o[key] for o in order):
                            order.insert(R.randint(0, len(order)), {key: extra})
                    if R.random() < 0.1:
                        R.shuffle(order)
                    out["$setElementOrder/" + k] = order
                    if R.random() < 0.3:
                        continue
            if k in PRIMITIVE and R.random() < 0.5:
                out["$deleteFromPrimitiveList/" + k] = some(["f/a", "f/b"])
                if R.random() < 0.5:
                    out["$setElementOrder/" + k] = some(["f/a", "f/b", "f/c"])
                # Without an order upstream deletes and merges in no order, so not both.
                if R.random() < 0.5 or "$setElementOrder/" + k not in out:
                    continue
            if k == "strategy" and isinstance(v, dict) and R.random() < 0.5:
                v["$retainKeys"] = [n for n in v if not n.startswith("$")] + (["type"] if R.random() < 0.2 else [])
            if isinstance(v, dict) and k in ("labels", "securityContext", "nodeSelector") and R.random() < 0.15:
                v["$patch"] = R.choice(["replace", "delete", "replace", "odd"])
            out[k] = v
        return out
    if isinstance(value, list):
        items = [spoil(v) for v in value]
        if name in KEYS:
            for item in items:
                if R.random() < 0.15:
                    item["$patch"] = R.choice(["delete", "delete", "delete", "replace", "merge"])
                if R.random() < 0.03:
                    item.pop(KEYS[name], None)
        return items
    return value


cases = []
for _ in range(count):
    patch = spoil(obj())
    for k in ("apiVersion", "kind"):
        patch.pop(k, None)
    cases.append({"group": "apps", "kind": "Deployment", "object": obj(), "patch": patch})
json.dump({"cases": cases}, sys.stdout)
