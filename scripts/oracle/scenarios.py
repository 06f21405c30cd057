"""Scenarios for the field manager: a few by hand, many at random (seeded)."""
import json, random, sys

def A(m, o, force=False, sub=""): 
    s={"op":"apply","manager":m,"object":o}
    if force: s["force"]=True
    if sub: s["subresource"]=sub
    return s
def U(m, o, sub=""):
    s={"op":"update","manager":m,"object":o}
    if sub: s["subresource"]=sub
    return s
def cm(**k):
    o={"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"d"}}
    md=k.pop("metadata",None)
    if md: o["metadata"].update(md)
    o.update(k); return o
def dep(spec=None, **k):
    o={"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","namespace":"d"}}
    md=k.pop("metadata",None)
    if md: o["metadata"].update(md)
    if spec is not None: o["spec"]=spec
    o.update(k); return o
def tmpl(cs, **k): return {"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":dict({"containers":cs},**k)}}

S=[]
def sc(name, kind, steps, group=None, **k):
    group = {"ConfigMap":"","Service":"","Pod":"","Deployment":"apps"}.get(kind) if group is None else group
    S.append(dict({"name":name,"group":group,"kind":kind},**k,steps=steps))

sc("two appliers, shared and conflicting","ConfigMap",[
  A("a",cm(data={"k":"1","l":"1"})), A("b",cm(data={"k":"1"})), A("b",cm(data={"k":"2"})), A("b",cm(data={"k":"2"}),True),
  A("a",cm(data={"l":"1"})), A("b",cm()), A("a",cm(data={"l":"1"})), A("a",cm())])
sc("before first apply","ConfigMap",[
  U("w",cm(data={"k":"1"})), U("w",{"metadata":{"managedFields":[]}}), U("w",{"data":{"m":"1"}}), A("a",cm(data={"k":"2"})), A("a",cm(data={"k":"2"}),True), U("w",{"data":{"m":"2"}})])
sc("reset by an empty entry","ConfigMap",[
  A("a",cm(data={"k":"1"})), U("w",{"data":{"m":"1"}}), U("w",{"metadata":{"managedFields":[{}]}}), U("w",{"data":{"n":"1"}})])
sc("kubectl upgrades from client-side apply","ConfigMap",[
  U("kubectl-client-side-apply",cm(metadata={"annotations":{"kubectl.kubernetes.io/last-applied-configuration":json.dumps(cm(data={"k":"1","l":"1"}))+"\n"}},data={"k":"1","l":"1"})),
  A("kubectl",cm(data={"k":"2","l":"1"})), A("kubectl",cm(data={"k":"3"}))])
sc("kubectl does not take over what others wrote","ConfigMap",[
  U("kubectl-client-side-apply",cm(metadata={"annotations":{"kubectl.kubernetes.io/last-applied-configuration":json.dumps(cm(data={"k":"1"}))+"\n"}},data={"k":"1"})),
  U("w",{"data":{"z":"1"}}), A("kubectl",cm(data={"k":"2","z":"2"}))])
sc("updaters beyond ten become ancient","ConfigMap",[U("u%d"%i,cm(data={"k%d"%i:"1"}) if i==0 else {"data":{"k%d"%i:"1"}}) for i in range(14)])
sc("hpa and owner of replicas","Deployment",[
  A("a",dep(dict(tmpl([{"name":"c","image":"i:1"}]),replicas=2))), U("hpa",{"spec":{"replicas":5}},"scale"),
  A("a",dep(dict(tmpl([{"name":"c","image":"i:2"}]),replicas=2))), A("a",dep(tmpl([{"name":"c","image":"i:2"}])))])
sc("status has its own owner","Deployment",[
  A("a",dep(dict(tmpl([{"name":"c","image":"i:1"}])))), U("ctl",{"status":{"replicas":1,"conditions":[{"type":"Available","status":"True","lastUpdateTime":"2020-01-01T00:00:00Z","lastTransitionTime":"2020-01-01T00:00:00Z"}]}},"status"),
  U("ctl",{"status":{"conditions":[{"type":"Available","status":"False","lastUpdateTime":"2020-01-01T00:00:00Z","lastTransitionTime":"2020-01-01T00:00:00Z"},{"type":"Progressing","status":"True","lastUpdateTime":"2020-01-01T00:00:00Z","lastTransitionTime":"2020-01-01T00:00:00Z"}]}},"status"),
  U("w",{"status":{"replicas":9},"spec":{"paused":True}}), A("s",dep(status={"readyReplicas":3}),sub="status")])
sc("containers come and go","Deployment",[
  A("a",dep(tmpl([{"name":"c","image":"i"},{"name":"d","image":"i"}]))),
  A("b",dep({"template":{"spec":{"containers":[{"name":"d","env":[{"name":"X","value":"1"}]},{"name":"e","image":"i"}]}}})),
  A("a",dep(tmpl([{"name":"c","image":"i"}]))), A("b",dep({"template":{"spec":{"containers":[{"name":"e","image":"j"}]}}}))])
sc("keys with defaults","Deployment",[
  A("a",dep(tmpl([{"name":"c","image":"i","ports":[{"containerPort":80},{"containerPort":53,"protocol":"UDP"}]}]))),
  A("b",dep({"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":80,"protocol":"TCP","name":"h"}]}]}}})),
  A("a",dep(tmpl([{"name":"c","image":"i","ports":[{"containerPort":53,"protocol":"UDP"}]}])))])
sc("atomic lists and maps","Deployment",[
  A("a",dep(tmpl([{"name":"c","image":"i","args":["x","y"]}],nodeSelector={"a":"1"},tolerations=[{"key":"k"}]))),
  A("b",dep({"template":{"spec":{"nodeSelector":{"b":"1"},"containers":[{"name":"c","args":["x"]}]}}})),
  A("b",dep({"template":{"spec":{"nodeSelector":{"b":"1"},"containers":[{"name":"c","args":["x"]}]}}}),True),
  A("a",dep(tmpl([{"name":"c","image":"i"}],tolerations=[])))])
sc("finalizers are a set","ConfigMap",[
  A("a",cm(metadata={"finalizers":["x/a","x/b"]})), A("b",cm(metadata={"finalizers":["x/c","x/b"]})),
  A("a",cm(metadata={"finalizers":["x/b"]})), A("b",cm()), U("w",{"metadata":{"finalizers":["x/d","x/b"]}}), A("a",cm())])
sc("wrong types and unknown fields","Deployment",[
  A("a",dep(tmpl([{"name":"c","image":"i","foo":1}]))), A("a",dep(dict(tmpl([{"name":"c","image":3}]),replicas="x"))),
  A("a",dep(tmpl([{"name":"c"},{"name":"c"}]))), A("a",dep(tmpl([{"image":"c"}]))), A("a",dep(tmpl([{"name":"c","image":"i"}]))),
  A("a",{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","namespace":"d","managedFields":[{"manager":"z"}]}})])
sc("null and empty","ConfigMap",[
  A("a",cm(data={"k":"1"},metadata={"labels":{}})), A("a",cm(data={})), A("b",cm(metadata={"labels":{"x":"1"}})), A("a",cm(data={"k":"1"})), A("b",cm(metadata={"labels":None}))])
sc("empty structs stay when their fields go","Deployment",[
  A("a",dep(tmpl([{"name":"c","image":"i","securityContext":{"privileged":True},"livenessProbe":{"httpGet":{"port":80}}}],securityContext={"runAsUser":1},volumes=[{"name":"v","emptyDir":{}}]))),
  A("a",dep(tmpl([{"name":"c","image":"i","securityContext":{}}],volumes=[{"name":"v"}]))), A("a",dep(tmpl([{"name":"c","image":"i"}])))])
THING={"type":"object","properties":{"spec":{"type":"object","properties":{
  "size":{"type":"integer"},"free":{"type":"object","x-kubernetes-preserve-unknown-fields":True},
  "parts":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["id"],"items":{"type":"object","properties":{"id":{"type":"string"},"n":{"type":"integer"}}}},
  "tags":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
  "plain":{"type":"array","items":{"type":"string"}},
  "labels":{"type":"object","additionalProperties":{"type":"string"}},
  "whole":{"type":"object","x-kubernetes-map-type":"atomic","properties":{"a":{"type":"string"},"b":{"type":"string"}}}}},
  "status":{"type":"object","x-kubernetes-preserve-unknown-fields":True}}}
def thing(spec, **k): return dict({"apiVersion":"lab.example/v1","kind":"Thing","metadata":{"name":"x","namespace":"d"},"spec":spec},**k)
sc("a custom resource","Thing",[
  A("a",thing({"size":1,"parts":[{"id":"p","n":1},{"id":"q"}],"tags":["t","u"],"plain":["x"],"labels":{"l":"1"},"whole":{"a":"1"},"free":{"deep":{"er":[1,{"x":1}]}}})),
  A("b",thing({"parts":[{"id":"q","n":2},{"id":"r"}],"tags":["v","t"],"labels":{"m":"1"},"free":{"deep":{"b":1}}})),
  A("b",thing({"whole":{"b":"1"},"plain":["y"]})), A("b",thing({"whole":{"b":"1"},"plain":["y"],"parts":[{"id":"q","n":2}]}),True),
  A("a",thing({"size":2,"parts":[{"id":"q"}],"tags":["u"],"free":{"deep":{}}})), U("ctl",{"status":{"phase":"Up","list":[1]}},"status"),
  A("a",thing({"size":2,"free":{"deep":{"er":"s"}}})), A("a",thing({"wrong":1})), U("w",{"spec":{"tags":["t","t"],"parts":[{"id":"q"},{"id":"q","n":3}]}}), A("a",thing({"size":3,"tags":["t"],"parts":[{"id":"z"}]}),True)],
  group="lab.example",structural=THING)

def rnd(n, seed):
    R=random.Random(seed)
    def some(x,p=.5): return x if R.random()<p else None
    def sub(xs): return [x for x in xs if R.random()<.5]
    def clean(d): return {k:v for k,v in d.items() if v is not None}
    def data(): return {k:R.choice("12") for k in sub("klmn")}
    def meta(full):
        md={"name":"x","namespace":"d"} if full else {}
        if R.random()<.4: md["labels"]={k:R.choice("12") for k in sub("pq")}
        if R.random()<.3: f=sub(["x/a","x/b","x/c"]); R.shuffle(f); md["finalizers"]=f
        if R.random()<.2: md["ownerReferences"]=[{"apiVersion":"v1","kind":"Pod","name":"p","uid":u} for u in sub("uv")]
        return md
    def container(name):
        c={"name":name}
        if R.random()<.7: c["image"]=R.choice(["i:1","i:2"])
        if R.random()<.4: c["env"]=[clean({"name":e,"value":some(R.choice("12"),.7)}) for e in sub("XYZ")]; R.shuffle(c["env"])
        if R.random()<.4: c["ports"]=[clean({"containerPort":p,"protocol":some(R.choice(["TCP","UDP"]),.6),"name":some("n%d"%p,.3)}) for p in sub([80,53])]
        if R.random()<.3: c["args"]=sub("ab")
        if R.random()<.3: c["resources"]=clean({"limits":some({k:R.choice(["1","2"]) for k in sub(["cpu","memory"])}),"requests":some({"cpu":"1"})})
        if R.random()<.2: c["securityContext"]=clean({"runAsUser":some(R.choice([1,2])),"privileged":some(True)})
        return c
    def depspec():
        sp={}
        if R.random()<.4: sp["replicas"]=R.choice([1,2,3])
        if R.random()<.4: sp["selector"]={"matchLabels":{"a":R.choice("12")}}
        if R.random()<.2: sp["strategy"]=R.choice([{"type":"Recreate"},{"type":"RollingUpdate","rollingUpdate":{"maxSurge":R.choice([1,"10%"])}},{}])
        if R.random()<.8:
            ps={}
            if R.random()<.9:
                cs=[container(n) for n in sub("cde")]; R.shuffle(cs); ps["containers"]=cs
            if R.random()<.3: ps["volumes"]=[clean({"name":v,"emptyDir":some({},.6)}) for v in sub("vw")]
            if R.random()<.2: ps["nodeSelector"]={k:"1" for k in sub("xy")}
            if R.random()<.2: ps["tolerations"]=[{"key":k} for k in sub("xy")]
            if R.random()<.2: ps["securityContext"]=clean({"runAsUser":some(1)})
            t={"spec":ps}
            if R.random()<.4: t["metadata"]={"labels":{"a":R.choice("12")}}
            sp["template"]=t
        return sp
    def svcspec():
        sp={}
        if R.random()<.8:
            ps=[clean({"port":p,"protocol":some("TCP",.6),"name":some("n%d"%p,.5),"targetPort":R.choice([1,"x"])}) for p in sub([80,81,82])]; R.shuffle(ps); sp["ports"]=ps
        if R.random()<.5: sp["selector"]={k:R.choice("12") for k in sub("xy")}
        if R.random()<.3: sp["type"]=R.choice(["ClusterIP","NodePort"])
        if R.random()<.2: sp["externalIPs"]=sub(["1.1.1.1","2.2.2.2"])
        return sp
    def thspec():
        sp={}
        if R.random()<.5: sp["size"]=R.choice([1,2])
        if R.random()<.5:
            ps=[clean({"id":i,"n":some(R.choice([1,2]))}) for i in sub("pqr")]; R.shuffle(ps); sp["parts"]=ps
        if R.random()<.5: t=sub("tuv"); R.shuffle(t); sp["tags"]=t
        if R.random()<.3: sp["plain"]=sub("xy")
        if R.random()<.4: sp["labels"]={k:R.choice("12") for k in sub("lm")}
        if R.random()<.3: sp["whole"]={k:R.choice("12") for k in sub("ab")}
        if R.random()<.4: sp["free"]=R.choice([{"d":1},{"d":{"e":1}},{"d":{"f":[1]}},{"d":None},{},{"d":{"e":{}}}])
        return sp
    for i in range(n):
        kind=R.choice(["ConfigMap","Deployment","Deployment","Service","Thing"])
        steps=[]
        for j in range(R.randint(3,8)):
            ap=R.random()<.65
            body={}
            if kind=="ConfigMap":
                if R.random()<.8: body["data"]=data()
                api="v1"
            elif kind=="Deployment":
                body["spec"]=depspec(); api="apps/v1"
            elif kind=="Service":
                body["spec"]=svcspec(); api="v1"
            else:
                body["spec"]=thspec(); api="lab.example/v1"
            md=meta(ap or j==0)
            if ap or j==0: o=dict({"apiVersion":api,"kind":kind,"metadata":md},**body)
            else:
                o=dict(body); 
                if md: o["metadata"]=md
                # now and then something goes
                if R.random()<.3:
                    if kind=="ConfigMap": o.setdefault("data",{})[R.choice("klmn")]=None
                    else: o.setdefault("spec",{})[R.choice({"Deployment":["replicas","strategy"],"Service":["ports","selector"],"Thing":["parts","tags","free"]}[kind])]=None
            m=R.choice("abc") if ap else R.choice(["u","v","a"])
            steps.append(A(m,o,R.random()<.4) if ap else U(m,o))
        k={"structural":THING} if kind=="Thing" else {}
        sc("random %d"%i,kind,steps,group={"ConfigMap":"","Service":"","Deployment":"apps","Thing":"lab.example"}[kind],**k)

count, seed, schemas = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if "--random-only" in sys.argv:
    S.clear()
rnd(count, seed)
json.dump({"schemas": schemas, "scenarios": S}, sys.stdout)
