# A page for labs without a registry. As root, since it stands in for `nginx:alpine`, which starts as root on port 80.
FROM scratch
COPY k8slab /k8slab
EXPOSE 80
ENTRYPOINT ["/k8slab", "workload", "web"]
