"""kopf against a cluster: every kind of handler, one after the other; prints passed/attempted.

Run by `scripts/fidelity kopf`, which made the virtual environment; the argument is its `kopf` program.
"""

import os
import subprocess
import sys
import tempfile
import time

from kubernetes import client, config

GROUP, VERSION, PLURAL, NAMESPACE = "lab.example.com", "v1", "examples", "default"

OPERATOR = '''
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.posting.enabled = True
    settings.posting.loggers = True

@kopf.on.create("lab.example.com", "v1", "examples")
def created(spec, patch, **_):
    patch.status["created"] = spec.get("size", 0)

@kopf.on.update("lab.example.com", "v1", "examples", field="spec.size")
def resized(old, new, patch, **_):
    patch.status["resized"] = f"{old}-{new}"

@kopf.on.event("lab.example.com", "v1", "examples")
def seen(type, name, **_):
    print(f"event {type} {name}", flush=True)

@kopf.timer("lab.example.com", "v1", "examples", interval=1.0)
def tick(patch, status, **_):
    patch.status["ticks"] = status.get("ticks", 0) + 1

@kopf.daemon("lab.example.com", "v1", "examples")
async def follow(stopped, name, **_):
    print(f"following {name}", flush=True)
    await stopped.wait()

@kopf.on.delete("lab.example.com", "v1", "examples")
def deleted(name, **_):
    print(f"deleted {name}", flush=True)

@kopf.index("lab.example.com", "v1", "examples")
def sizes(name, spec, **_):
    return {name: spec.get("size")}
'''


def crd(group, plural, kind, scope):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


class Operator:
    """A `kopf run` that is up, and what it says."""

    def __init__(self, kopf, source, *options):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        command = [kopf, "run", "--namespace", NAMESPACE, *options, source]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def said(self):
        with open(self.log.name) as log:
            return log.read()

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=30)


def until(what, probe, limit=30):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        value = probe()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"gave up waiting for {what}")


def main(kopf):
    config.load_kube_config()
    custom, extensions, core = client.CustomObjectsApi(), client.ApiextensionsV1Api(), client.CoreV1Api()
    at = (GROUP, VERSION, NAMESPACE, PLURAL)
    results = []

    def check(name, probe):
        try:
            probe()
            results.append((name, None))
        except Exception as error:  # a failed check is a figure, not the end
            results.append((name, error))
        print(f"{'ok    ' if results[-1][1] is None else 'FAILED'} {name}", results[-1][1] or "", flush=True)

    def status(name="first"):
        return custom.get_namespaced_custom_object(*at, name).get("status", {})

    for body in (
        crd(GROUP, PLURAL, "Example", "Namespaced"),
        crd("kopf.dev", "kopfpeerings", "KopfPeering", "Namespaced"),
        crd("kopf.dev", "clusterkopfpeerings", "ClusterKopfPeering", "Cluster"),
    ):
        extensions.create_custom_resource_definition(body)

    def established():
        return all(
            any(c.type == "Established" and c.status == "True" for c in (d.status.conditions or []))
            for d in extensions.list_custom_resource_definition().items
        )

    check("the definitions are established", lambda: until("Established", established))
    peering = {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": "default"}}
    custom.create_namespaced_custom_object("kopf.dev", "v1", NAMESPACE, "kopfpeerings", peering)

    source = tempfile.NamedTemporaryFile("w", suffix=".py", delete=False)
    source.write(OPERATOR)
    source.close()
    first = Operator(kopf, source.name, "--peering=default", "--priority=10")

    def peers():
        found = custom.get_namespaced_custom_object("kopf.dev", "v1", NAMESPACE, "kopfpeerings", "default")
        return found.get("status")

    check("the operator joins its peering", lambda: until("a peer", peers))
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Example", "metadata": {"name": "first"}, "spec": {"size": 1}}
    custom.create_namespaced_custom_object(*at, body)
    check("on.create", lambda: until("status.created", lambda: status().get("created") == 1))
    check("on.event", lambda: until("ADDED", lambda: "event ADDED first" in first.said() or "event None first" in first.said()))
    check("timer", lambda: until("two ticks", lambda: status().get("ticks", 0) >= 2))
    check("daemon", lambda: until("its start", lambda: "following first" in first.said()))
    check(
        "the finalizer is set",
        lambda: until(
            "a finalizer", lambda: custom.get_namespaced_custom_object(*at, "first")["metadata"].get("finalizers")
        ),
    )
    custom.patch_namespaced_custom_object(*at, "first", {"spec": {"size": 2}})
    check("on.update of a field", lambda: until("status.resized", lambda: status().get("resized") == "1-2"))
    check(
        "events are posted",
        lambda: until("an event", lambda: [e for e in core.list_namespaced_event(NAMESPACE).items if e.involved_object.name == "first"]),
    )
    second = Operator(kopf, source.name, "--peering=default", "--priority=20")
    check("the higher priority pauses the lower", lambda: until("a pause", lambda: "Pausing" in first.said()))

    def stopped():
        assert second.stop() in (0, -15), second.said()[-500:]

    check("an operator ends when told", stopped)
    check("the lower priority goes on", lambda: until("a resumption", lambda: "Resuming" in first.said(), limit=90))
    custom.delete_namespaced_custom_object(*at, "first")

    def gone():
        return not custom.list_namespaced_custom_object(*at)["items"]

    check("on.delete, and the object goes", lambda: until("the object to go", lambda: gone() and "deleted first" in first.said()))
    first.stop()
    if any(error for _, error in results):
        print(first.said()[-3000:], file=sys.stderr)
    passed = sum(error is None for _, error in results)
    print(f"{passed}/{len(results)} passed")
    os.unlink(source.name)


main(sys.argv[1])
