FROM scratch
COPY k8slab /k8slab
ENTRYPOINT ["/k8slab", "workload", "web"]
