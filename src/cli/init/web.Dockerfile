# `k8slab` is this program: it has the page inside. Any other image that needs no network to build does as well.
FROM scratch
COPY k8slab /k8slab
EXPOSE 80
ENTRYPOINT ["/k8slab", "workload", "web"]
