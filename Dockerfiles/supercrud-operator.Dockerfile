# The lab's workloads are modules of one static binary: the image is that file and nothing else.
FROM scratch
COPY k8slab /k8slab
COPY k8slab /bin/curl
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/k8slab", "workload", "supercrud-operator"]
