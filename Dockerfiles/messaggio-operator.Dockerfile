# The lab's workloads are modules of one static binary: the image is that file and nothing else.
FROM scratch
COPY k8slab /k8slab
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["/k8slab", "workload", "messaggio-operator"]
